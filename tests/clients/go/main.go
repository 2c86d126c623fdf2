// Go's crypto/tls as a client and as a server, with its defaults.
//
//	peer serve [-client-ca FILE] CERTIFICATE KEY [ALPN...]
//	peer dial [FLAGS] ADDRESS NAME CA VERSION MESSAGE [ALPN...]
//	peer exchange [FLAGS] ADDRESS NAME CA VERSION BYTES
//
// The flags of a client are those of clientFlags.
package main

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
)

func main() {
	log.SetFlags(0)
	var err error
	switch arguments := os.Args[2:]; os.Args[1] {
	case "serve":
		err = serve(arguments)
	case "dial":
		err = dial(arguments)
	case "exchange":
		err = exchange(arguments)
	default:
		err = fmt.Errorf("%s?", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

// serve answers each line with the same line backwards, and each HTTP request with its path
// backwards. It says its address first.
//
// With the file of an authority, it requires client certificates, and says whose each is.
func serve(arguments []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	clientCA := flags.String("client-ca", "", "the authority of clients")
	_ = flags.Parse(arguments)
	pair, err := tls.LoadX509KeyPair(flags.Arg(0), flags.Arg(1))
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: flags.Args()[2:]}
	if *clientCA != "" {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		if config.ClientCAs, err = authority(*clientCA); err != nil {
			return err
		}
		config.VerifyConnection = func(state tls.ConnectionState) error {
			fmt.Println("client", state.PeerCertificates[0].Subject.CommonName)
			return nil
		}
	}
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

// clientFlags has what a client does otherwise than by default.
type clientFlags struct {
	certificate, key string
	curves           string
	times            int
}

// curves are those that a test asks for by name.
var curves = map[string]tls.CurveID{
	"X25519MLKEM768":    tls.X25519MLKEM768,
	"SecP256r1MLKEM768": tls.SecP256r1MLKEM768,
	"X25519":            tls.X25519,
	"P256":              tls.CurveP256,
	"P384":              tls.CurveP384,
}

// client returns the configuration and the address that the arguments ask for, and the other arguments.
func client(name string, arguments []string) (*tls.Config, string, []string, clientFlags, error) {
	var given clientFlags
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	flags.StringVar(&given.certificate, "certificate", "", "what the client shows of itself")
	flags.StringVar(&given.key, "key", "", "its key")
	flags.StringVar(&given.curves, "curves", "", "what it offers, with commas")
	flags.IntVar(&given.times, "times", 1, "how often it connects, with one cache of sessions")
	_ = flags.Parse(arguments)
	address, version := flags.Arg(0), flags.Arg(3)
	roots, err := authority(flags.Arg(2))
	if err != nil {
		return nil, "", nil, given, err
	}
	versions := map[string]uint16{
		"1.0": tls.VersionTLS10,
		"1.1": tls.VersionTLS11,
		"1.2": tls.VersionTLS12,
		"1.3": tls.VersionTLS13,
	}
	config := &tls.Config{
		RootCAs:            roots,
		ServerName:         flags.Arg(1),
		MinVersion:         versions[version],
		MaxVersion:         versions[version],
		ClientSessionCache: tls.NewLRUClientSessionCache(8),
	}
	if given.certificate != "" {
		pair, err := tls.LoadX509KeyPair(given.certificate, given.key)
		if err != nil {
			return nil, "", nil, given, err
		}
		// Whether the server asks for one of its issuer or not.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &pair, nil
		}
	}
	for name := range strings.SplitSeq(given.curves, ",") {
		if curve, known := curves[name]; known {
			config.CurvePreferences = append(config.CurvePreferences, curve)
		} else if name != "" {
			return nil, "", nil, given, fmt.Errorf("no curve %q", name)
		}
	}
	return config, address, flags.Args()[4:], given, nil
}

// dial says one line, as often as it is told, and tells what was negotiated and answered the last time.
func dial(arguments []string) error {
	config, address, rest, given, err := client("dial", arguments)
	if err != nil {
		return err
	}
	config.NextProtos = rest[1:]
	for range given.times - 1 {
		if _, _, err := converse(config, address, rest[0]); err != nil {
			return err
		}
	}
	answer, state, err := converse(config, address, rest[0])
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"version": tls.VersionName(state.Version),
		"alpn":    state.NegotiatedProtocol,
		"answer":  answer,
		"curve":   state.CurveID.String(),
		"retried": state.HelloRetryRequest,
		"resumed": state.DidResume,
		"key":     state.PeerCertificates[0].PublicKeyAlgorithm.String(),
	})
}

func converse(config *tls.Config, address, message string) (string, tls.ConnectionState, error) {
	connection, err := tls.Dial("tcp", address, config)
	if err != nil {
		return "", tls.ConnectionState{}, err
	}
	defer connection.Close()
	if _, err := fmt.Fprintln(connection, message); err != nil {
		return "", tls.ConnectionState{}, err
	}
	answer, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return "", tls.ConnectionState{}, err
	}
	if err := connection.CloseWrite(); err != nil {
		return "", tls.ConnectionState{}, err
	}
	if _, err := io.Copy(io.Discard, connection); err != nil {
		return "", tls.ConnectionState{}, err
	}
	return strings.TrimSuffix(answer, "\n"), connection.ConnectionState(), nil
}

// exchange sends so many bytes while it receives, ends its direction, receives the rest, and tells what
// both were.
func exchange(arguments []string) error {
	config, address, rest, _, err := client("exchange", arguments)
	if err != nil {
		return err
	}
	length, err := strconv.ParseInt(rest[0], 10, 64)
	if err != nil {
		return err
	}
	connection, err := tls.Dial("tcp", address, config)
	if err != nil {
		return err
	}
	defer connection.Close()
	sent, sentError := sha256.New(), make(chan error)
	go func() {
		random := io.LimitReader(rand.NewChaCha8([32]byte{1}), length)
		_, err := io.Copy(io.MultiWriter(sent, connection), random)
		if err == nil {
			err = connection.CloseWrite()
		}
		sentError <- err
	}()
	received := sha256.New()
	count, err := io.Copy(received, connection)
	if err != nil {
		return err
	}
	if err := <-sentError; err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"sent":          fmt.Sprintf("%x", sent.Sum(nil)),
		"received":      fmt.Sprintf("%x", received.Sum(nil)),
		"receivedBytes": count,
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
