//go:debug tlsmlkem=1

// A plain proxy as a Go programmer writes it: a goroutine for each direction, the standard library's
// parser for the hello, and io.Copy, which splices on Linux.
//
// With a certificate it serves TLS, and passes on what is within.
//
//	go-proxy [-certificate FILE -key FILE] LISTEN NAME=BACKEND...
package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"strings"
	"time"
)

const helloTimeout = 5 * time.Second

func main() {
	certificate := flag.String("certificate", "", "a chain of certificates, in PEM")
	key := flag.String("key", "", "the key of the first, in PEM")
	flag.Parse()
	if flag.NArg() < 2 {
		log.Fatal("usage: go-proxy [-certificate FILE -key FILE] LISTEN NAME=BACKEND...")
	}
	routes := make(map[string]string)
	for _, route := range flag.Args()[1:] {
		name, backend, _ := strings.Cut(route, "=")
		routes[name] = backend
	}
	listener, err := net.Listen("tcp", flag.Arg(0))
	if err != nil {
		log.Fatal(err)
	}
	var serving *tls.Config
	if *certificate != "" {
		pair, err := tls.LoadX509KeyPair(*certificate, *key)
		if err != nil {
			log.Fatal(err)
		}
		serving = &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			continue
		}
		if serving != nil {
			go terminate(tls.Server(client, serving), routes)
		} else {
			go serve(client.(*net.TCPConn), routes)
		}
	}
}

func terminate(client *tls.Conn, routes map[string]string) {
	defer client.Close()
	client.SetDeadline(time.Now().Add(helloTimeout))
	if client.Handshake() != nil {
		return
	}
	client.SetDeadline(time.Time{})
	if backend, ok := routes[client.ConnectionState().ServerName]; ok {
		join(client, backend, nil)
	}
}

func serve(client *net.TCPConn, routes map[string]string) {
	defer client.Close()
	name, received := peek(client)
	if backend, ok := routes[name]; ok {
		join(client, backend, received)
	}
}

// stream is a connection of which one direction may end before the other.
type stream interface {
	io.ReadWriter
	CloseWrite() error
}

// join passes on what the client says, after what has been received of it, and what it is answered.
func join(client stream, backend string, received []byte) {
	dialled, err := net.Dial("tcp", backend)
	if err != nil {
		return
	}
	server := dialled.(*net.TCPConn)
	defer server.Close()
	if len(received) > 0 {
		if _, err := server.Write(received); err != nil {
			return
		}
	}
	up := make(chan struct{})
	go func() {
		io.Copy(server, client)
		server.CloseWrite()
		close(up)
	}()
	io.Copy(client, server)
	client.CloseWrite()
	<-up
}

// peek returns the server name, and all that was read to learn it.
func peek(client net.Conn) (string, []byte) {
	client.SetReadDeadline(time.Now().Add(helloTimeout))
	defer client.SetReadDeadline(time.Time{})
	var received bytes.Buffer
	var name string
	tls.Server(mute{client, io.TeeReader(client, &received)}, &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			name = hello.ServerName
			return nil, errors.New("this is all that was wanted")
		},
	}).Handshake()
	return name, received.Bytes()
}

// mute is a connection on which nothing is said.
type mute struct {
	net.Conn
	reader io.Reader
}

func (c mute) Read(b []byte) (int, error)  { return c.reader.Read(b) }
func (c mute) Write(b []byte) (int, error) { return 0, io.EOF }
