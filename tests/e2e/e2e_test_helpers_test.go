// Package e2e tests the running services from end to end, with the Go client and plain gRPC.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/vectron/vectron/clientlibs/go/api/authv1"
	"github.com/vectron/vectron/clientlibs/go/api/vectronv1"
)

const (
	password     = "Correct-horse-7"
	readySeconds = 20
)

// cluster is the services as processes of their own, on free ports of loopback.
type cluster struct {
	grpcAddress, httpAddress         string
	authGRPCAddress, authHTTPAddress string
	processes                        []*exec.Cmd
	output                           lockedBuffer
	data                             vectronv1.VectronServiceClient
	auth                             authv1.AuthServiceClient
}

// lockedBuffer collects what processes say, for the report of a failure.
type lockedBuffer struct {
	lock sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(data []byte) (int, error) {
	b.lock.Lock()
	defer b.lock.Unlock()
	return b.text.Write(data)
}

func (b *lockedBuffer) String() string {
	b.lock.Lock()
	defer b.lock.Unlock()
	return b.text.String()
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// start runs a program and waits for the line of its output that begins so.
func (c *cluster) start(t *testing.T, folder string, environment []string, line, program string, arguments ...string) {
	t.Helper()
	bin := os.Getenv("VECTRON_BIN")
	if bin == "" {
		bin = "../../bin"
	}
	path, err := filepath.Abs(filepath.Join(bin, program))
	must(t, err)
	command := exec.Command(path, arguments...)
	command.Dir = folder
	command.Env = append([]string{"PATH=" + os.Getenv("PATH")}, environment...)
	command.Stderr = &c.output
	stdout, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	c.processes = append(c.processes, command)
	ready := make(chan struct{})
	go func() {
		var once sync.Once
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			fmt.Fprintln(&c.output, lines.Text())
			if strings.HasPrefix(lines.Text(), line) {
				once.Do(func() { close(ready) })
			}
		}
	}()
	select {
	case <-ready:
	case <-time.After(readySeconds * time.Second):
		t.Fatalf("%s is not ready:\n%s", program, c.output.String())
	}
}

// startCluster starts one of each service and two workers; they end with the test.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{grpcAddress: freeAddress(t), httpAddress: freeAddress(t),
		authGRPCAddress: freeAddress(t), authHTTPAddress: freeAddress(t)}
	t.Cleanup(func() { c.stop(t) })
	folder := t.TempDir()
	placement, placementRaft, reranker := freeAddress(t), freeAddress(t), freeAddress(t)
	common := []string{"TRUSTED_PROXIES=127.0.0.0/8", "RATE_LIMIT_RPS=0"}
	with := func(more ...string) []string { return append(append([]string{}, common...), more...) }
	c.start(t, folder, common, "placementdriver ready", "placementdriver", "--grpc-addr", placement,
		"--raft-addr", placementRaft, "--initial-members", "1:"+placementRaft, "--data-dir", filepath.Join(folder, "pd"))
	for i := 1; i <= 2; i++ {
		c.start(t, folder, common, "Successfully registered with PD", "worker", "--grpc-addr", freeAddress(t),
			"--raft-addr", freeAddress(t), "--pd-addrs", placement, "--node-id", fmt.Sprint(i),
			"--data-dir", filepath.Join(folder, fmt.Sprint("worker", i)))
	}
	c.start(t, folder, with("GRPC_PORT="+c.authGRPCAddress, "HTTP_PORT="+c.authHTTPAddress, "PD_ADDRS="+placement),
		"authsvc ready", "authsvc")
	c.start(t, folder, with("PD_ADDRS="+placement), "reranker ready", "reranker", "--port", reranker)
	c.start(t, folder, with("GRPC_ADDR="+c.grpcAddress, "HTTP_ADDR="+c.httpAddress, "PLACEMENT_DRIVER="+placement,
		"AUTH_SERVICE_ADDR="+c.authGRPCAddress, "RERANKER_SERVICE_ADDR="+reranker,
		"FEEDBACK_DB_PATH="+filepath.Join(folder, "feedback.db")), "apigateway ready", "apigateway")
	c.waitReady(t)
	c.data = vectronv1.NewVectronServiceClient(dial(t, c.grpcAddress))
	c.auth = authv1.NewAuthServiceClient(dial(t, c.authGRPCAddress))
	return c
}

func (c *cluster) waitReady(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(readySeconds * time.Second)
	for _, address := range []string{c.httpAddress, c.authHTTPAddress} {
		for {
			response, err := http.Get("http://" + address + "/readyz")
			if err == nil {
				response.Body.Close()
				if response.StatusCode == http.StatusOK {
					break
				}
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is not ready:\n%s", address, c.output.String())
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func (c *cluster) stop(t *testing.T) {
	for i := len(c.processes) - 1; i >= 0; i-- {
		_ = c.processes[i].Process.Signal(syscall.SIGTERM)
		if err := c.processes[i].Wait(); err != nil {
			t.Errorf("%s: %v\n%s", c.processes[i].Path, err, c.output.String())
		}
	}
}

func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.Dial(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { connection.Close() })
	return connection
}

// --- Callers

var callers atomic.Int64

// by is a context with a token, or with none; each caller without one comes from an address of its own, as
// accounts are limited by address.
func by(token string) context.Context {
	number := callers.Add(1)
	ctx := metadata.AppendToOutgoingContext(context.Background(), "x-forwarded-for",
		fmt.Sprintf("10.9.%d.%d", number/250%250, number%250+1))
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	return ctx
}

// user is an account with a key, and both kinds of token.
type user struct {
	email, login string
	key          *authv1.APIKey
	sdk          string
}

func (c *cluster) makeUser(t *testing.T) *user {
	t.Helper()
	u := &user{email: fmt.Sprintf("e2e%d-%d@example.com", os.Getpid(), callers.Add(1))}
	_, err := c.auth.RegisterUser(by(""), &authv1.RegisterUserRequest{Email: u.email, Password: password})
	must(t, err)
	u.login = c.logIn(t, u.email)
	u.key, u.sdk = c.makeKey(t, u, "first", "")
	return u
}

func (c *cluster) logIn(t *testing.T, email string) string {
	t.Helper()
	answer, err := c.auth.Login(by(""), &authv1.LoginRequest{Email: email, Password: password})
	must(t, err)
	return answer.JwtToken
}

func (c *cluster) makeKey(t *testing.T, u *user, name, role string) (*authv1.APIKey, string) {
	t.Helper()
	answer, err := c.auth.CreateAPIKey(by(u.login), &authv1.CreateAPIKeyRequest{Name: name, Role: role})
	must(t, err)
	return answer.KeyInfo, answer.SdkJwt
}

// --- HTTP

// http sends JSON and gives the code and the decoded answer.
func (c *cluster) http(t *testing.T, method, url, token string, body any) (int, map[string]any) {
	t.Helper()
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		must(t, err)
		reader = bytes.NewReader(data)
	}
	request, err := http.NewRequest(method, url, reader)
	must(t, err)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-Forwarded-For", fmt.Sprintf("10.8.%d.%d", callers.Add(1)/250%250, callers.Load()%250+1))
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	defer response.Body.Close()
	answer := map[string]any{}
	must(t, json.NewDecoder(response.Body).Decode(&answer))
	return response.StatusCode, answer
}

// --- Checks

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code codes.Code) {
	t.Helper()
	if status.Code(err) != code {
		t.Fatalf("got %v, want %v", err, code)
	}
}
