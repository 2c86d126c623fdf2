// Go's crypto/tls as a client and as a server, with its defaults.
//
//	peer serve CERTIFICATE KEY [ALPN...]
//	peer dial ADDRESS NAME CA VERSION MESSAGE [ALPN...]
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"
)

func main() {
	log.SetFlags(0)
	var err error
	switch arguments := os.Args[2:]; os.Args[1] {
	case "serve":
		err = serve(arguments[0], arguments[1], arguments[2:])
	case "dial":
		err = dial(arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5:])
	default:
		err = fmt.Errorf("%s?", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

// serve answers each line with the same line backwards, and each HTTP request with its path
// backwards. It says its address first.
func serve(certificate, key string, alpn []string) error {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: alpn}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return err
	}
	fmt.Println("listening on", listener.Addr())
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			if err := answer(connection.(*tls.Conn)); err != nil {
				log.Print(err)
			}
		}()
	}
}

func answer(connection *tls.Conn) error {
	reader := bufio.NewReader(connection)
	for {
		start, err := reader.Peek(4)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if string(start) == "GET " {
			return answerRequest(reader, connection)
		}
		line, err := reader.ReadString('\n')
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(connection, reversed(strings.TrimSuffix(line, "\n"))); err != nil {
			return err
		}
	}
}

func answerRequest(reader *bufio.Reader, connection *tls.Conn) error {
	request, err := http.ReadRequest(reader)
	if err != nil {
		return err
	}
	body := reversed(strings.TrimPrefix(request.URL.Path, "/"))
	if _, err := fmt.Fprintf(connection, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", len(body), body); err != nil {
		return err
	}
	// The client ends it, and does not wait for a close_notify: one sent then would be reset.
	if _, err := io.Copy(io.Discard, connection); err != nil {
		return err
	}
	return connection.NetConn().Close()
}

func reversed(text string) string {
	bytes := []byte(text)
	slices.Reverse(bytes)
	return string(bytes)
}

// dial says one line and tells what was negotiated and answered.
func dial(address, name, ca, version, message string, alpn []string) error {
	roots, err := authority(ca)
	if err != nil {
		return err
	}
	versions := map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
	config := &tls.Config{
		RootCAs:    roots,
		ServerName: name,
		NextProtos: alpn,
		MinVersion: versions[version],
		MaxVersion: versions[version],
	}
	connection, err := tls.Dial("tcp", address, config)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := fmt.Fprintln(connection, message); err != nil {
		return err
	}
	answer, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return err
	}
	if err := connection.CloseWrite(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, connection); err != nil {
		return err
	}
	state := connection.ConnectionState()
	return json.NewEncoder(os.Stdout).Encode(map[string]string{
		"version": tls.VersionName(state.Version),
		"alpn":    state.NegotiatedProtocol,
		"answer":  strings.TrimSuffix(answer, "\n"),
	})
}

func authority(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return roots, nil
}
