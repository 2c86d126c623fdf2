// The program in the pods behind sluice.
//
//	backend serve -name NAME -cert FILE -key FILE [-listen ADDR] [-proxy] [-require URL]
//	backend pause
//
// serve is an HTTPS server. `GET /` tells its name; `GET /client` the address of its client; `GET /stream?seconds=N` tells it every 100 ms for
// N seconds. After SIGTERM it takes no more connections, and ends when the last request has.
// With -proxy, every connection has to begin with a PROXY header. With -require it first wants an answer from that URL, once, and fails without it.
//
// pause is the first process of a pod: it waits for the end.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"
)

func main() {
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch {
	case len(os.Args) > 1 && os.Args[1] == "pause":
		<-ended.Done()
	case len(os.Args) > 1 && os.Args[1] == "serve":
		serve(ended, os.Args[2:])
	default:
		log.Fatal("usage: backend serve|pause")
	}
}

func serve(ended context.Context, arguments []string) {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	name := flags.String("name", "", "what to answer")
	listen := flags.String("listen", ":8443", "where to listen")
	cert := flags.String("cert", "/tls/tls.crt", "the certificate")
	key := flags.String("key", "/tls/tls.key", "its key")
	proxied := flags.Bool("proxy", false, "whether connections begin with a PROXY header")
	require := flags.String("require", "", "a URL that has to answer 200")
	flags.Parse(arguments)
	if *require != "" {
		check(*require)
	}

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	if *proxied {
		policy := func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			return proxyproto.REQUIRE, nil
		}
		listener = &proxyproto.Listener{Listener: listener, ConnPolicy: policy}
	}
	server := http.Server{Handler: handler(*name)}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(listener, *cert, *key) }()
	select {
	case err := <-served:
		log.Fatal(err)
	case <-ended.Done():
	}
	log.Print("SIGTERM")
	if err := server.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	log.Print("the last request has ended")
}

func handler(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, name)
	})
	mux.HandleFunc("GET /client", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.RemoteAddr)
	})
	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		seconds, err := strconv.Atoi(r.URL.Query().Get("seconds"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for range seconds * 10 {
			fmt.Fprintln(w, name)
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		fmt.Fprintln(w, "end")
	})
	return mux
}

func check(url string) {
	response, err := http.Get(url)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		log.Fatalf("%s: %s", url, response.Status)
	}
}
