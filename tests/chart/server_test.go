package chart

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	random "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// How long a server may take to be ready, on a machine with other work to do that has yet to read the
// program from its disk.
const readyWithin = 5 * time.Minute

// How often a server is started if one of its programs ends: a port may be taken by then, and kube-apiserver
// ends if etcd has not answered for 20 seconds.
const starts = 3

// A server is etcd and kube-apiserver, without any controller.
type server struct {
	folder, kubeconfig string
	processes          []*process
}

// A process is a program that a server started.
type process struct {
	*exec.Cmd
	log   string
	ended chan struct{}
}

var (
	shared     *server
	startOnce  sync.Once
	startFault error
)

// apiServer is the one that all tests share. The first call starts it.
func apiServer(t *testing.T) *server {
	t.Helper()
	startOnce.Do(func() { shared, startFault = startServer() })
	if startFault != nil {
		t.Fatal(startFault)
	}
	return shared
}

func stopServer() {
	if shared != nil {
		shared.stop()
	}
}

// kubectl runs kubectl as the administrator.
func (s *server) kubectl(args ...string) (stdout, stderr string, err error) {
	all := append([]string{"--kubeconfig", s.kubeconfig, "--cache-dir", filepath.Join(s.folder, "cache")}, args...)
	return run(exec.Command(program("kubectl"), all...))
}

// must runs kubectl, which has to succeed.
func (s *server) must(t *testing.T, args ...string) string {
	t.Helper()
	out, fault, err := s.kubectl(args...)
	if err != nil {
		t.Fatalf("kubectl %q: %s", args, fault)
	}
	return out
}

// helm runs helm as the administrator.
func (s *server) helm(args ...string) (stdout, stderr string, err error) {
	return helm(append(args, "--kubeconfig", s.kubeconfig)...)
}

func startServer() (s *server, err error) {
	for range starts {
		if s, err = tryServer(); err == nil {
			break
		}
		fmt.Fprintf(os.Stderr, "a server does not start: %s\n", err)
	}
	return s, err
}

func tryServer() (*server, error) {
	folder, err := os.MkdirTemp("", "sluice-chart-")
	if err != nil {
		return nil, err
	}
	s := &server{folder: folder, kubeconfig: filepath.Join(folder, "kubeconfig")}
	if err := s.start(); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *server) start() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"sa.key":     pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
		"sa.pub":     pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		"tokens.csv": []byte("admin-token,admin,admin,\"system:masters\"\n"),
	} {
		if err := os.WriteFile(filepath.Join(s.folder, name), content, 0o600); err != nil {
			return err
		}
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	etcd, peer := fmt.Sprintf("http://127.0.0.1:%d", ports[0]), fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	if err := s.run("etcd", "--data-dir="+s.in("etcd"), "--listen-client-urls="+etcd, "--advertise-client-urls="+etcd,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer,
		"--unsafe-no-fsync"); err != nil {
		return err
	}
	if err := s.ready(etcd + "/health"); err != nil {
		return err
	}
	if err := s.run("kube-apiserver", "--etcd-servers="+etcd, "--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", ports[2]), "--cert-dir="+s.in("certificates"),
		// No address of this machine: without a default route it would find none and end.
		"--advertise-address=198.18.0.1",
		"--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+s.in("sa.pub"), "--service-account-signing-key-file="+s.in("sa.key"),
		"--authorization-mode=RBAC", "--token-auth-file="+s.in("tokens.csv")); err != nil {
		return err
	}
	url := fmt.Sprintf("https://127.0.0.1:%d", ports[2])
	if err := s.ready(url + "/readyz"); err != nil {
		return err
	}
	return os.WriteFile(s.kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{ name: test, cluster: { server: "%s", certificate-authority: "%s" } }]
users: [{ name: admin, user: { token: admin-token } }]
contexts: [{ name: test, context: { cluster: test, user: admin } }]
current-context: test
`, url, s.in("certificates/apiserver.crt")), 0o600)
}

func (s *server) in(name string) string { return filepath.Join(s.folder, name) }

// run starts a program that ends with this one, even if this one is killed.
func (s *server) run(name string, args ...string) error {
	log, err := os.Create(s.in(name + ".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	p := &process{exec.Command(program(name), args...), log.Name(), make(chan struct{})}
	p.Stdout, p.Stderr = log, log
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.Start(); err != nil {
		return err
	}
	go func() {
		_ = p.Wait()
		close(p.ended)
	}()
	s.processes = append(s.processes, p)
	return nil
}

// ready waits until the program that was started last answers at a URL.
func (s *server) ready(url string) error {
	// The certificate is not there before the server is.
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer admin-token")
	asked, last := time.After(readyWithin), s.processes[len(s.processes)-1]
	for {
		if answer, err := client.Do(request); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-last.ended:
			return last.fault("ended")
		case <-asked:
			return last.fault(fmt.Sprintf("is not ready after %s", readyWithin))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// fault says what is wrong with a process, and what it wrote last.
func (p *process) fault(what string) error {
	log, _ := os.ReadFile(p.log)
	return fmt.Errorf("%s %s: %s", filepath.Base(p.Path), what, log[max(0, len(log)-2000):])
}

// By SIGKILL: by SIGTERM the API server takes a minute.
func (s *server) stop() {
	for _, p := range s.processes {
		_ = p.Process.Kill()
		<-p.ended
	}
	_ = os.RemoveAll(s.folder)
}

func program(name string) string {
	return filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), name)
}

// freePorts finds ports that nobody listens on, and that the kernel gives no client (it gives those
// above 32767) before a server listens on them.
func freePorts(count int) (ports []int, err error) {
	for tries := 0; len(ports) < count; tries++ {
		port := 20000 + random.IntN(12000)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil && tries < 1000 {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		ports = append(ports, port)
	}
	return ports, nil
}
