// Package e2e tests the running services from end to end, with the Go client and plain gRPC.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
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
	driverAddresses                  []string
	services                         []*service // in the order of their start
	output                           lockedBuffer
	data                             vectronv1.VectronServiceClient
	auth                             authv1.AuthServiceClient
}

// service is one program, running or not.
type service struct {
	name, folder, line, program string
	environment, arguments      []string
	command                     *exec.Cmd // nil: it does not run
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

// freeAddress is below the range that the system takes ports for outgoing connections from.
func freeAddress(t *testing.T) string {
	t.Helper()
	for try := 0; try < 1000; try++ {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 12000+rand.Intn(20000)))
		if err == nil {
			defer listener.Close()
			return listener.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// add makes a service known; it is started by start. Its ready line begins with line.
func (c *cluster) add(name, folder, line, program string, environment []string, arguments ...string) {
	c.services = append(c.services, &service{name: name, folder: folder, line: line, program: program,
		environment: environment, arguments: arguments})
}

func (c *cluster) named(t *testing.T, name string) *service {
	t.Helper()
	for _, one := range c.services {
		if one.name == name {
			return one
		}
	}
	t.Fatalf("there is no %s", name)
	return nil
}

// start runs a service and waits for its ready line.
func (c *cluster) start(t *testing.T, name string) {
	t.Helper()
	one := c.named(t, name)
	bin := os.Getenv("VECTRON_BIN")
	if bin == "" {
		bin = "../../bin"
	}
	path, err := filepath.Abs(filepath.Join(bin, one.program))
	must(t, err)
	command := exec.Command(path, one.arguments...)
	command.Dir = one.folder
	command.Env = append([]string{"PATH=" + os.Getenv("PATH")}, one.environment...)
	command.Stderr = &c.output
	stdout, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	one.command = command
	ready := make(chan struct{})
	go func() {
		var once sync.Once
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			fmt.Fprintln(&c.output, lines.Text())
			if strings.HasPrefix(lines.Text(), one.line) {
				once.Do(func() { close(ready) })
			}
		}
	}()
	select {
	case <-ready:
	case <-time.After(readySeconds * time.Second):
		t.Fatalf("%s is not ready:\n%s", name, c.output.String())
	}
}

// kill ends a service as a machine that loses its power would.
func (c *cluster) kill(t *testing.T, name string) {
	t.Helper()
	one := c.named(t, name)
	must(t, one.command.Process.Kill())
	_ = one.command.Wait() // it was killed
	one.command = nil
}

// startCluster starts one of each service and two workers; they end with the test.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	return startClusterOf(t, 1, 2)
}

// startClusterOf starts so many placement drivers and workers, and one of each other service.
func startClusterOf(t *testing.T, drivers, workers int) *cluster {
	t.Helper()
	c := &cluster{grpcAddress: freeAddress(t), httpAddress: freeAddress(t),
		authGRPCAddress: freeAddress(t), authHTTPAddress: freeAddress(t)}
	t.Cleanup(func() { c.stop(t) })
	folder, reranker := t.TempDir(), freeAddress(t)
	common := []string{"TRUSTED_PROXIES=127.0.0.0/8", "RATE_LIMIT_RPS=0"}
	with := func(more ...string) []string { return append(append([]string{}, common...), more...) }
	var raft, members []string
	for i := 1; i <= drivers; i++ {
		c.driverAddresses = append(c.driverAddresses, freeAddress(t))
		raft = append(raft, freeAddress(t))
		members = append(members, fmt.Sprintf("%d:%s", i, raft[i-1]))
	}
	placement := strings.Join(c.driverAddresses, ",")
	for i := 1; i <= drivers; i++ {
		name := fmt.Sprint("placementdriver", i)
		c.add(name, folder, "placementdriver ready", "placementdriver", common,
			"--grpc-addr", c.driverAddresses[i-1], "--raft-addr", raft[i-1], "--node-id", fmt.Sprint(i),
			"--initial-members", strings.Join(members, ","), "--data-dir", filepath.Join(folder, name))
	}
	for i := 1; i <= workers; i++ {
		name := fmt.Sprint("worker", i)
		c.add(name, folder, "Successfully registered with PD", "worker", common, "--grpc-addr", freeAddress(t),
			"--raft-addr", freeAddress(t), "--pd-addrs", placement, "--node-id", fmt.Sprint(i),
			"--data-dir", filepath.Join(folder, name))
	}
	c.add("authsvc", folder, "authsvc ready", "authsvc",
		with("GRPC_PORT="+c.authGRPCAddress, "HTTP_PORT="+c.authHTTPAddress, "PD_ADDRS="+placement))
	c.add("reranker", folder, "reranker ready", "reranker", with("PD_ADDRS="+placement), "--port", reranker)
	c.add("apigateway", folder, "apigateway ready", "apigateway",
		with("GRPC_ADDR="+c.grpcAddress, "HTTP_ADDR="+c.httpAddress, "PLACEMENT_DRIVER="+placement,
			"AUTH_SERVICE_ADDR="+c.authGRPCAddress, "RERANKER_SERVICE_ADDR="+reranker,
			"FEEDBACK_DB_PATH="+filepath.Join(folder, "feedback.db")))
	for _, one := range c.services {
		c.start(t, one.name)
	}
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

// stop ends what runs, the last first; each must end well.
func (c *cluster) stop(t *testing.T) {
	for i := len(c.services) - 1; i >= 0; i-- {
		one := c.services[i]
		if one.command == nil {
			continue
		}
		_ = one.command.Process.Signal(syscall.SIGTERM)
		if err := one.command.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", one.name, err, c.output.String())
		}
		one.command = nil
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
