package vectron

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The tests run against a `vectron dev` of their own, from the folder VECTRON_BIN or the project's bin.
var testHost, testToken string

// proxy is what the environment names as such; it must stay alone.
var proxy net.Listener

func TestMain(m *testing.M) {
	var err error
	if proxy, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// Before any connection: net/http reads it once.
	os.Setenv("HTTPS_PROXY", "http://"+proxy.Addr().String())
	stop, err := startServer()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	stop()
	os.Exit(code)
}

func startServer() (func(), error) {
	folder, err := os.MkdirTemp("", "vectron-go-")
	if err != nil {
		return nil, err
	}
	command, host, token, err := startDev(folder, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	testHost, testToken = host, token
	return func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		_ = command.Wait()
		_ = os.RemoveAll(folder)
	}, nil
}

// startDev starts a `vectron dev` that keeps its data in the folder, and waits until it is ready.
func startDev(folder, address string) (command *exec.Cmd, host, token string, err error) {
	bin := os.Getenv("VECTRON_BIN")
	if bin == "" {
		bin = "../../bin"
	}
	free := "127.0.0.1:0"
	command = exec.Command(filepath.Join(bin, "vectron"), "dev", "--data-dir", filepath.Join(folder, "data"),
		"--http-addr", free, "--grpc-addr", address, "--auth-http-addr", free, "--auth-grpc-addr", free)
	command.Env = append(os.Environ(), "RATE_LIMIT_RPS=0")
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, "", "", err
	}
	if err := command.Start(); err != nil {
		return nil, "", "", err
	}
	lines := bufio.NewScanner(output)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		for _, word := range strings.Fields(lines.Text()) {
			name, value, _ := strings.Cut(word, "=")
			switch name {
			case "VECTRON_TOKEN":
				token = value
			case "grpc":
				host = value
			}
		}
		if host != "" && token != "" {
			return command, host, token, nil
		}
	}
	_ = command.Wait()
	return nil, "", "", errors.New("vectron dev ended before it was ready")
}

func open(t *testing.T, options *ClientOptions) *Client {
	t.Helper()
	client, err := NewClientWithOptions(testHost, testToken, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, err error, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("got %v, want %v", err, kind)
	}
}

func TestAProgramFromBeginningToEnd(t *testing.T) {
	client := open(t, nil)
	must(t, client.CreateCollection("go-words", 3, "euclidean"))
	want(t, client.CreateCollection("go-words", 3, ""), ErrAlreadyExists)
	names, err := client.ListCollections()
	must(t, err)
	if !strings.Contains(strings.Join(names, " "), "go-words") {
		t.Fatal(names)
	}
	status, err := client.GetCollectionStatus("go-words")
	must(t, err)
	if status.Dimension != 3 || status.Distance != "euclidean" || len(status.Shards) != 1 {
		t.Fatalf("%+v", status)
	}
	payload := map[string]any{"text": "ä", "n": 3.0, "yes": true, "none": nil, "list": []any{1.0, "x"}}
	count, err := client.Upsert("go-words", []*Point{
		{ID: "a", Vector: []float32{0.1, -2, 3e-20}, Payload: payload}, {ID: "b", Vector: []float32{5, 5, 5}}})
	must(t, err)
	if count != 2 {
		t.Fatal(count)
	}
	point, err := client.Get("go-words", "a")
	must(t, err)
	if !reflect.DeepEqual(point.Vector, []float32{0.1, -2, 3e-20}) || !reflect.DeepEqual(point.Payload, payload) {
		t.Fatalf("%+v", point)
	}
	hits, err := client.Search("go-words", []float32{5, 5, 4}, 1)
	must(t, err)
	if len(hits) != 1 || hits[0].ID != "b" || hits[0].Score != 1 || hits[0].Vector != nil {
		t.Fatalf("%+v", hits[0])
	}
	var coverage Coverage
	hits, err = client.SearchWithOptions("go-words", []float32{0, -2, 0}, &SearchOptions{TopK: 2,
		IncludeVectors: true, Exact: true, WithoutPayload: true, ShardTimeout: 5 * time.Second, Coverage: &coverage})
	must(t, err)
	if coverage != (Coverage{ShardsTotal: 1, ShardsAnswered: 1}) {
		t.Fatalf("%+v", coverage)
	}
	if len(hits) != 2 || hits[0].ID != "a" || len(hits[0].Vector) != 3 || len(hits[0].Payload) != 0 {
		t.Fatalf("%+v", hits[0])
	}
	id, err := client.SubmitFeedback("go-words", &Feedback{Query: "x",
		Items: []FeedbackItem{{ResultID: "a", RelevanceScore: 5}}})
	must(t, err)
	if id == "" {
		t.Fatal("no id")
	}
	must(t, client.Delete("go-words", "a"))
	must(t, client.Delete("go-words", "a"))
	_, err = client.Get("go-words", "a")
	want(t, err, ErrNotFound)
	if !strings.Contains(err.Error(), "not found") {
		t.Fatal(err)
	}
	must(t, client.DeleteCollection("go-words"))
	_, err = client.Search("go-words", []float32{1, 2, 3}, 1)
	want(t, err, ErrNotFound)
}

func manyPoints(count int) []*Point {
	points := make([]*Point, count)
	for i := range points {
		points[i] = &Point{ID: fmt.Sprint("p", i), Vector: []float32{float32(i), 1}}
	}
	return points
}

func TestManyPointsAndHits(t *testing.T) {
	client := open(t, nil)
	must(t, client.CreateCollection("go-many", 2, "euclidean"))
	var last atomic.Int64
	count, err := client.UpsertBatch("go-many", manyPoints(3000), &BatchOptions{Concurrency: 4,
		Progress: func(stored int) { last.Store(int64(stored)) }})
	must(t, err)
	if count != 3000 || last.Load() != 3000 {
		t.Fatal(count, last.Load())
	}
	seen := map[string]bool{}
	must(t, client.SearchStream("go-many", []float32{0, 1}, &SearchOptions{TopK: 2500}, func(hit *SearchResult) error {
		if len(seen) == 0 && hit.ID != "p0" {
			t.Error(hit.ID)
		}
		seen[hit.ID] = true
		return nil
	}))
	if len(seen) != 2500 {
		t.Fatal(len(seen))
	}
	enough := errors.New("enough")
	err = client.SearchStream("go-many", []float32{0, 1}, nil, func(*SearchResult) error { return enough })
	want(t, err, enough)
}

func TestABatchThatFailsSaysWhatIsStored(t *testing.T) {
	client := open(t, nil)
	must(t, client.CreateCollection("go-part", 2, ""))
	points := manyPoints(1000)
	points[700].Vector = []float32{1, 2, 3}
	_, err := client.UpsertBatch("go-part", points, &BatchOptions{BatchSize: 100})
	want(t, err, ErrInvalidArgument)
	var batch *BatchError
	if !errors.As(err, &batch) || batch.Stored != 700 {
		t.Fatal(err)
	}
	_, err = client.Get("go-part", "p699")
	must(t, err)
	_, err = client.Get("go-part", "p701")
	want(t, err, ErrNotFound)
	ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
	defer cancel()
	_, err = client.UpsertBatchContext(ctx, "go-part", manyPoints(1000), nil)
	want(t, err, ErrDeadlineExceeded)
}

func TestErrorsHaveTheirKinds(t *testing.T) {
	stranger, err := NewClient(testHost, "nonsense")
	must(t, err)
	defer stranger.Close()
	_, err = stranger.ListCollections()
	want(t, err, ErrAuthentication)
	client := open(t, nil)
	want(t, client.CreateCollection("x", 0, ""), ErrInvalidArgument)
	_, err = client.Upsert("x", []*Point{{ID: "a", Payload: map[string]any{"when": struct{}{}}}})
	want(t, err, ErrInvalidArgument)
	t.Setenv("VECTRON_TOKEN", "")
	if _, err := NewClient(testHost, ""); err == nil || !strings.Contains(err.Error(), "VECTRON_TOKEN") {
		t.Fatal(err)
	}
}

func TestReadsAreTriedAgainAndHedged(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := listener.Addr().String()
	listener.Close()
	lonely, err := NewClientWithOptions(address, "token", &ClientOptions{RetryPause: 5 * time.Millisecond})
	must(t, err)
	defer lonely.Close()
	_, err = lonely.ListCollections()
	want(t, err, ErrUnavailable)
	want(t, lonely.Delete("c", "id"), ErrUnavailable)

	hedged := open(t, &ClientOptions{HedgeAfter: time.Microsecond, Gzip: true})
	must(t, hedged.CreateCollection("go-hedged", 1, "euclidean"))
	_, err = hedged.Upsert("go-hedged", []*Point{{ID: "a", Vector: []float32{1}}})
	must(t, err)
	for i := 0; i < 50; i++ {
		hits, err := hedged.Search("go-hedged", []float32{1}, 1)
		must(t, err)
		if hits[0].ID != "a" {
			t.Fatal(hits[0].ID)
		}
	}
}

// Nothing is sent to the proxy of the environment unless that is asked for.
func TestNoProxyGetsTheToken(t *testing.T) {
	ask := func(options *ClientOptions) {
		options.Timeout, options.Retries = 2*time.Second, -1
		client, err := NewClientWithOptions("vectron.invalid:8081", "token", options)
		must(t, err)
		defer client.Close()
		_, err = client.ListCollections()
		if err == nil {
			t.Fatal("an answer from nowhere")
		}
	}
	ask(&ClientOptions{})
	must(t, proxy.(*net.TCPListener).SetDeadline(time.Now().Add(100*time.Millisecond)))
	if connection, err := proxy.Accept(); err == nil {
		connection.Close()
		t.Fatal("the proxy was connected to")
	}
	must(t, proxy.(*net.TCPListener).SetDeadline(time.Now().Add(5*time.Second)))
	accepted := make(chan error, 1)
	go func() {
		connection, err := proxy.Accept()
		if err == nil {
			connection.Close()
		}
		accepted <- err
	}()
	ask(&ClientOptions{UseProxy: true})
	must(t, <-accepted)
}

// restartable is a `vectron dev` that can be killed and started again at its address.
type restartable struct {
	folder, address, token string
	command                *exec.Cmd
}

func (r *restartable) start(t *testing.T) {
	t.Helper()
	var err error
	r.command, r.address, r.token, err = startDev(r.folder, r.address)
	must(t, err)
}

func (r *restartable) kill() {
	_ = r.command.Process.Kill()
	_ = r.command.Wait()
}

func startRestartable(t *testing.T) *restartable {
	t.Helper()
	r := &restartable{folder: t.TempDir(), address: "127.0.0.1:0"}
	r.start(t)
	t.Cleanup(func() { r.kill() })
	return r
}

func TestAnUploadOutlivesAServerThatIsKilled(t *testing.T) {
	r := startRestartable(t)
	client, err := NewClientWithOptions(r.address, r.token, &ClientOptions{RetryWrites: true, Retries: 20})
	must(t, err)
	defer client.Close()
	must(t, client.CreateCollection("killed", 2, "euclidean"))
	var restart sync.Once
	count, err := client.UpsertBatch("killed", manyPoints(20000), &BatchOptions{Concurrency: 3, Progress: func(stored int) {
		if stored > 8000 {
			restart.Do(func() { r.kill(); r.start(t) })
		}
	}})
	must(t, err)
	if count != 20000 {
		t.Fatal(count)
	}
	seen, hits := map[string]bool{}, 0
	must(t, client.SearchStream("killed", []float32{0, 1}, &SearchOptions{TopK: 10000}, func(hit *SearchResult) error {
		seen[hit.ID] = true
		hits++
		return nil
	}))
	if hits != 10000 || len(seen) != hits {
		t.Fatal(hits, len(seen))
	}
	for i := 0; i < 20000; i += 97 {
		_, err := client.Get("killed", fmt.Sprint("p", i))
		must(t, err)
	}
}

func TestAnUploadWithADeadlineSaysWhatIsStored(t *testing.T) {
	r := startRestartable(t)
	client, err := NewClientWithOptions(r.address, r.token, &ClientOptions{RetryWrites: true, Retries: 100})
	must(t, err)
	defer client.Close()
	must(t, client.CreateCollection("late", 2, "euclidean"))
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	var killed sync.Once
	_, err = client.UpsertBatchContext(ctx, "late", manyPoints(20000), &BatchOptions{Progress: func(stored int) {
		if stored > 5000 {
			killed.Do(r.kill)
		}
	}})
	var batch *BatchError
	if !errors.As(err, &batch) || batch.Stored <= 5000 || batch.Stored >= 20000 {
		t.Fatal(err)
	}
	if !errors.Is(err, ErrDeadlineExceeded) && !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	r.start(t)
	for i := 0; i < batch.Stored; i++ {
		if i%97 == 0 || i == batch.Stored-1 {
			_, err := client.Get("late", fmt.Sprint("p", i))
			must(t, err)
		}
	}
	// The request under way may have been stored, no other.
	_, err = client.Get("late", fmt.Sprint("p", batch.Stored+256))
	want(t, err, ErrNotFound)
}

func Example() {
	client, err := NewClient(testHost, testToken) // "127.0.0.1:8081", "" takes VECTRON_TOKEN
	if err != nil {
		panic(err)
	}
	defer client.Close()
	if err := client.CreateCollection("colours", 3, "euclidean"); err != nil {
		panic(err)
	}
	_, err = client.Upsert("colours", []*Point{
		{ID: "red", Vector: []float32{1, 0, 0}, Payload: map[string]any{"warm": true}},
		{ID: "blue", Vector: []float32{0, 0, 1}},
	})
	if err != nil {
		panic(err)
	}
	hits, err := client.Search("colours", []float32{0.9, 0, 0}, 1)
	if err != nil {
		panic(err)
	}
	fmt.Println(hits[0].ID, hits[0].Payload["warm"])
	_, err = client.Get("colours", "ultraviolet")
	fmt.Println(errors.Is(err, ErrNotFound))
	// Output:
	// red true
	// true
}
