// A plain proxy as a Go programmer writes it: a goroutine for each direction, the standard library's
// parser for the hello, and io.Copy, which splices on Linux.
//
//	go-proxy LISTEN NAME=BACKEND...
package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"time"
)

const helloTimeout = 5 * time.Second

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: go-proxy LISTEN NAME=BACKEND...")
	}
	routes := make(map[string]string)
	for _, route := range os.Args[2:] {
		name, backend, _ := strings.Cut(route, "=")
		routes[name] = backend
	}
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			continue
		}
		go serve(client.(*net.TCPConn), routes)
	}
}

func serve(client *net.TCPConn, routes map[string]string) {
	defer client.Close()
	name, received := peek(client)
	backend, ok := routes[name]
	if !ok {
		return
	}
	dialled, err := net.Dial("tcp", backend)
	if err != nil {
		return
	}
	server := dialled.(*net.TCPConn)
	defer server.Close()
	if _, err := server.Write(received); err != nil {
		return
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
