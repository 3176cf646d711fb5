package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	vectron "github.com/vectron/vectron/clientlibs/go"
	"github.com/vectron/vectron/clientlibs/go/api/vectronv1"
)

// rawCodec sends and takes bytes as they are: the placement driver's messages are in no client library.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte{}, data...)
	return nil
}
func (rawCodec) Name() string { return "proto" }

// drain asks the placement drivers, by any of them, to keep new shards away from a worker.
func (c *cluster) drain(t *testing.T, workerID string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, answer := append([]byte{0x0a, byte(len(workerID))}, workerID...), []byte{}
	return dial(t, c.driverAddresses[len(c.driverAddresses)-1]).Invoke(ctx,
		"/vectron.placementdriver.v1.PlacementService/DrainWorker", &request, &answer, grpc.ForceCodec(rawCodec{}))
}

// writer upserts without a pause and remembers what was acknowledged.
type writer struct {
	client       *vectron.Client
	stop         chan struct{}
	done         sync.WaitGroup
	acknowledged int
	failure      error
}

func startWriter(client *vectron.Client, first int) *writer {
	w := &writer{client: client, stop: make(chan struct{}), acknowledged: first}
	w.done.Add(1)
	go func() {
		defer w.done.Done()
		for {
			select {
			case <-w.stop:
				return
			default:
			}
			if _, err := w.client.Upsert("life", []*vectron.Point{point(w.acknowledged)}); err != nil {
				w.failure = err
				return
			}
			w.acknowledged++
		}
	}()
	return w
}

// finish ends the writer; nothing may have failed.
func (w *writer) finish(t *testing.T) int {
	t.Helper()
	close(w.stop)
	w.done.Wait()
	must(t, w.failure)
	return w.acknowledged
}

func point(number int) *vectron.Point {
	return &vectron.Point{ID: fmt.Sprint("p", number), Vector: []float32{float32(number), 1, 0, 0}}
}

func checkPoints(t *testing.T, client *vectron.Client, count int) {
	t.Helper()
	for i := 0; i < count; i++ {
		found, err := client.Get("life", fmt.Sprint("p", i))
		if err != nil {
			t.Fatalf("point %d of %d: %v", i, count, err)
		}
		if found.Vector[0] != float32(i) {
			t.Fatalf("point %d holds %v", i, found.Vector)
		}
	}
}

// eventually asks again while the services say that they cannot at the moment.
func eventually(t *testing.T, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(readySeconds * time.Second)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestClusterLife is a cluster's life: made, used, every placement driver and a worker killed while it is used,
// a worker drained, all of it stopped and started again in another order.
func TestClusterLife(t *testing.T) {
	c := startClusterOf(t, 3, 2)
	u := c.makeUser(t)
	client, err := vectron.NewClient(c.grpcAddress, u.sdk)
	must(t, err)
	defer client.Close()
	must(t, client.CreateCollection("life", 4, "euclidean"))

	// A placement driver less costs no write, whichever it is.
	w := startWriter(client, 0)
	for i := 1; i <= 3; i++ {
		name := fmt.Sprint("placementdriver", i)
		c.kill(t, name)
		eventually(t, func() error {
			// A call whose end was not known may have been done.
			err := client.CreateCollection(fmt.Sprint("while-", i), 4, "cosine")
			if errors.Is(err, vectron.ErrAlreadyExists) {
				return nil
			}
			return err
		})
		c.start(t, name)
	}
	count := w.finish(t)
	if count < 100 {
		t.Fatalf("only %d writes meanwhile", count)
	}
	checkPoints(t, client, count)

	// A killed worker comes back with everything.
	c.kill(t, "worker1")
	c.start(t, "worker1")
	eventually(t, func() error { _, err := client.Get("life", "p0"); return err })
	eventually(t, func() error { _, err := client.Search("life", []float32{0, 1, 0, 0}, 1); return err })
	checkPoints(t, client, count)

	// A drained worker gets no new shards.
	life, err := c.data.GetCollectionStatus(by(u.sdk), &vectronv1.GetCollectionStatusRequest{Name: "life"})
	must(t, err)
	drained := life.Shards[0].Replicas[0]
	must(t, c.drain(t, fmt.Sprint(drained)))
	if got := status.Code(c.drain(t, "99999")); got != codes.NotFound {
		t.Fatalf("draining nobody gives %v", got)
	}
	must(t, client.CreateCollection("later", 4, "dot"))
	later, err := c.data.GetCollectionStatus(by(u.sdk), &vectronv1.GetCollectionStatusRequest{Name: "later"})
	must(t, err)
	for _, shard := range later.Shards {
		for _, replica := range shard.Replicas {
			if replica == drained {
				t.Fatalf("shard %d lies on the drained worker", shard.ShardId)
			}
		}
	}

	// All of it stopped, and started the other way round.
	c.stop(t)
	var ready sync.WaitGroup
	for i := len(c.services) - 1; i >= 0; i-- {
		name := c.services[i].name
		ready.Add(1)
		go func() { defer ready.Done(); c.start(t, name) }()
		time.Sleep(50 * time.Millisecond)
	}
	ready.Wait()
	c.waitReady(t)
	eventually(t, func() error { _, err := client.Search("life", []float32{0, 1, 0, 0}, 1); return err })
	checkPoints(t, client, count)
	names, err := client.ListCollections()
	must(t, err)
	if fmt.Sprint(names) != "[later life while-1 while-2 while-3]" {
		t.Fatalf("collections: %v", names)
	}
	if again := c.logIn(t, u.email); again == "" {
		t.Fatal("no login")
	}
}
