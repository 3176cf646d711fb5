// Package vectron is the Go client of the Vectron vector database.
//
// Access is by an SDK token, given or in the environment as VECTRON_TOKEN. A Client is one connection for any
// number of goroutines. Every method has a twin that takes a context first. Errors of calls are *Error and
// wrap ErrNotFound and its like.
package vectron

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/vectron/vectron/clientlibs/go/api/vectronv1"
)

const (
	messageSizeMax   = 256 << 20
	timeoutDefault   = 30 * time.Second
	retriesDefault   = 3
	pauseDefault     = 50 * time.Millisecond
	pauseMax         = 2 * time.Second // so that a server that is back is soon found
	batchSizeDefault = 256
)

// ClientOptions say how calls are made; the zero value is the usual way.
type ClientOptions struct {
	// Timeout of a call with its retries, when its context has no deadline; 0: 30 seconds.
	Timeout time.Duration
	// Retries of a read that failed with UNAVAILABLE, after pauses at random below a bound that doubles from
	// RetryPause up to 2 s; 0: 3 and 50 ms. Negative: none.
	Retries    int
	RetryPause time.Duration
	// RetryWrites has writes tried again too: an upsert or delete that is done twice does no harm.
	RetryWrites bool
	// HedgeAfter is the time after which a read that has not answered is sent a second time; the first answer
	// counts. 0: never.
	HedgeAfter time.Duration
	// TLS, when the gateway speaks it; nil: plain text.
	TLS *tls.Config
	// Gzip compresses requests.
	Gzip bool
	// UseProxy goes through the proxy that HTTPS_PROXY names, which the client otherwise pays no heed to.
	UseProxy bool
}

// Point is an id of 1 to 512 bytes of UTF-8, a vector of the collection's dimension, and a payload: what
// encoding/json would make an object of, with map[string]any, []any, string, bool, nil and numbers.
type Point struct {
	ID      string
	Vector  []float32
	Payload map[string]any
}

// SearchResult is a hit. Score is a distance, smaller is nearer; Vector is there when it was asked for.
type SearchResult struct {
	ID          string
	Score       float32
	Payload     map[string]any
	Vector      []float32
	RerankScore float32
}

// ShardStatus tells where a shard is.
type ShardStatus struct {
	ShardID  uint32
	Replicas []uint64
	LeaderID uint64
	Ready    bool
}

// CollectionStatus tells what a collection is.
type CollectionStatus struct {
	Name      string
	Dimension int32
	Distance  string
	Shards    []ShardStatus
}

// SearchOptions say how a search is done; the zero value is the usual way.
type SearchOptions struct {
	TopK           uint32 // up to 10,000; 0: 10
	Query          string // text for the reranker
	WithoutPayload bool
	IncludeVectors bool
	Exact          bool          // compare with every point
	Ef             uint32        // how much effort; 0: the server chooses
	ShardTimeout   time.Duration // leave out shards that have not answered by then; 0: wait
	MaxStaleness   time.Duration // how old an answer may be; 0: not at all
	Coverage       *Coverage     // filled by a search that succeeds, not by a stream; may be nil
}

// Coverage says which share of a collection's shards an answer is from (all of them without ShardTimeout), and
// how old it may be.
type Coverage struct {
	ShardsTotal    uint32
	ShardsAnswered uint32
	Staleness      time.Duration
}

// BatchOptions say how UpsertBatch cuts and sends.
type BatchOptions struct {
	BatchSize   int              // points of a request; 0: 256
	Concurrency int              // requests under way; 0: 1
	Progress    func(stored int) // called after each request; may be nil
}

// FeedbackItem says how good a result was; RelevanceScore 1 to 5, 0 for none given.
type FeedbackItem struct {
	ResultID       string
	RelevanceScore int32
	Clicked        bool
	Position       int32
	Comment        string
}

// Feedback is what SubmitFeedback sends.
type Feedback struct {
	Query     string
	ResultIDs []string
	Items     []FeedbackItem
	Context   map[string]string
}

// Client is a connection to a gateway.
type Client struct {
	connection *grpc.ClientConn
	service    vectronv1.VectronServiceClient
	options    ClientOptions
	token      string
}

// NewClient connects when the first call is made. host: "HOST:PORT" of the gateway's gRPC port; token: an SDK
// token, or "" for VECTRON_TOKEN.
func NewClient(host, token string) (*Client, error) {
	return NewClientWithOptions(host, token, nil)
}

// NewClientWithOptions is NewClient with options; nil: the usual ones.
func NewClientWithOptions(host, token string, options *ClientOptions) (*Client, error) {
	if token == "" {
		token = os.Getenv("VECTRON_TOKEN")
	}
	if token == "" {
		return nil, errors.New("vectron: an SDK token is needed: as an argument or as VECTRON_TOKEN")
	}
	client := &Client{token: token}
	if options != nil {
		client.options = *options
	}
	fillDefaults(&client.options)
	transport := insecure.NewCredentials()
	if client.options.TLS != nil {
		transport = credentials.NewTLS(client.options.TLS)
	}
	calls := []grpc.CallOption{grpc.MaxCallRecvMsgSize(messageSizeMax), grpc.MaxCallSendMsgSize(messageSizeMax)}
	if client.options.Gzip {
		calls = append(calls, grpc.UseCompressor(gzip.Name))
	}
	dial := []grpc.DialOption{grpc.WithTransportCredentials(transport), grpc.WithDefaultCallOptions(calls...)}
	if !client.options.UseProxy {
		dial = append(dial, grpc.WithNoProxy())
	}
	connection, err := grpc.Dial(host, dial...)
	if err != nil {
		return nil, err
	}
	client.connection = connection
	client.service = vectronv1.NewVectronServiceClient(connection)
	return client, nil
}

func fillDefaults(options *ClientOptions) {
	if options.Timeout == 0 {
		options.Timeout = timeoutDefault
	}
	if options.Retries == 0 {
		options.Retries = retriesDefault
	}
	if options.RetryPause == 0 {
		options.RetryPause = pauseDefault
	}
}

// Close ends the connection; calls under way fail.
func (c *Client) Close() error { return c.connection.Close() }

// --- Calls

func (c *Client) withToken(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
	if _, has := ctx.Deadline(); has {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.options.Timeout)
}

type answer[T any] struct {
	value T
	err   error
}

// hedged asks a second time when the first answer is late; the first good one counts.
func hedged[T any](ctx context.Context, after time.Duration, ask func(context.Context) (T, error)) (T, error) {
	if after <= 0 {
		return ask(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer[T], 2)
	send := func() {
		value, err := ask(ctx)
		answers <- answer[T]{value, err}
	}
	go send()
	late := time.NewTimer(after)
	defer late.Stop()
	underWay := 1
	for {
		select {
		case <-late.C:
			underWay++
			go send()
		case got := <-answers:
			underWay--
			if got.err == nil || underWay == 0 {
				return got.value, got.err
			}
		}
	}
}

func call[T any](ctx context.Context, c *Client, isRead bool, ask func(context.Context) (T, error)) (T, error) {
	ctx, cancel := c.withToken(ctx)
	defer cancel()
	var hedge time.Duration
	retries := c.options.Retries
	if isRead {
		hedge = c.options.HedgeAfter
	} else if !c.options.RetryWrites {
		retries = 0
	}
	bound := c.options.RetryPause
	for {
		value, err := hedged(ctx, hedge, ask)
		if err == nil || status.Code(err) != codes.Unavailable || retries <= 0 {
			return value, toError(err)
		}
		retries--
		select {
		case <-ctx.Done():
			return value, toError(err)
		case <-time.After(time.Duration(rand.Int63n(int64(bound) + 1))):
		}
		if bound *= 2; bound > pauseMax {
			bound = pauseMax
		}
	}
}

// --- Collections

// CreateCollection: name of 1 to 128 of A-Z a-z 0-9 _ . -, dimension 1 to 65,535, distance cosine ("" too),
// euclidean or dot.
func (c *Client) CreateCollection(name string, dimension int32, distance string) error {
	return c.CreateCollectionContext(context.Background(), name, dimension, distance)
}

// CreateCollectionContext is CreateCollection with a context.
func (c *Client) CreateCollectionContext(ctx context.Context, name string, dimension int32, distance string) error {
	_, err := call(ctx, c, false, func(ctx context.Context) (*vectronv1.CreateCollectionResponse, error) {
		return c.service.CreateCollection(ctx, &vectronv1.CreateCollectionRequest{
			Name: name, Dimension: dimension, Distance: distance})
	})
	return err
}

// DeleteCollection removes a collection with its points.
func (c *Client) DeleteCollection(name string) error {
	return c.DeleteCollectionContext(context.Background(), name)
}

// DeleteCollectionContext is DeleteCollection with a context.
func (c *Client) DeleteCollectionContext(ctx context.Context, name string) error {
	_, err := call(ctx, c, false, func(ctx context.Context) (*vectronv1.DeleteCollectionResponse, error) {
		return c.service.DeleteCollection(ctx, &vectronv1.DeleteCollectionRequest{Name: name})
	})
	return err
}

// ListCollections gives the names, in order.
func (c *Client) ListCollections() ([]string, error) {
	return c.ListCollectionsContext(context.Background())
}

// ListCollectionsContext is ListCollections with a context.
func (c *Client) ListCollectionsContext(ctx context.Context) ([]string, error) {
	got, err := call(ctx, c, true, func(ctx context.Context) (*vectronv1.ListCollectionsResponse, error) {
		return c.service.ListCollections(ctx, &vectronv1.ListCollectionsRequest{})
	})
	return got.GetCollections(), err
}

// GetCollectionStatus tells what a collection is and where its shards are.
func (c *Client) GetCollectionStatus(name string) (*CollectionStatus, error) {
	return c.GetCollectionStatusContext(context.Background(), name)
}

// GetCollectionStatusContext is GetCollectionStatus with a context.
func (c *Client) GetCollectionStatusContext(ctx context.Context, name string) (*CollectionStatus, error) {
	got, err := call(ctx, c, true, func(ctx context.Context) (*vectronv1.GetCollectionStatusResponse, error) {
		return c.service.GetCollectionStatus(ctx, &vectronv1.GetCollectionStatusRequest{Name: name})
	})
	if err != nil {
		return nil, err
	}
	found := &CollectionStatus{Name: got.Name, Dimension: got.Dimension, Distance: got.Distance}
	for _, shard := range got.Shards {
		found.Shards = append(found.Shards, ShardStatus{shard.ShardId, shard.Replicas, shard.LeaderId, shard.Ready})
	}
	return found, nil
}

// --- Points

func toMessage(point *Point) (*vectronv1.Point, error) {
	message := &vectronv1.Point{Id: point.ID, Vector: point.Vector}
	if len(point.Payload) > 0 {
		document, err := structpb.NewStruct(point.Payload)
		if err != nil {
			return nil, &Error{Code: codes.InvalidArgument, Message: "payload of " + point.ID + ": " + err.Error(),
				kind: ErrInvalidArgument}
		}
		message.Document = document
	}
	return message, nil
}

func toPayload(document *structpb.Struct, simple map[string]string) map[string]any {
	if document != nil {
		return document.AsMap()
	}
	payload := make(map[string]any, len(simple))
	for name, value := range simple {
		payload[name] = value
	}
	return payload
}

// Upsert stores points in one request, which is checked whole before anything is stored; the last one of an id
// wins. It returns how many; they are on disk and searches find them.
func (c *Client) Upsert(collection string, points []*Point) (int32, error) {
	return c.UpsertContext(context.Background(), collection, points)
}

// UpsertContext is Upsert with a context.
func (c *Client) UpsertContext(ctx context.Context, collection string, points []*Point) (int32, error) {
	request := &vectronv1.UpsertRequest{Collection: collection, Points: make([]*vectronv1.Point, len(points))}
	for i, point := range points {
		message, err := toMessage(point)
		if err != nil {
			return 0, err
		}
		request.Points[i] = message
	}
	got, err := call(ctx, c, false, func(ctx context.Context) (*vectronv1.UpsertResponse, error) {
		return c.service.Upsert(ctx, request)
	})
	return got.GetUpserted(), err
}

// UpsertBatch stores any number of points in several requests. An error is a *BatchError, which tells how many
// are known to be stored.
func (c *Client) UpsertBatch(collection string, points []*Point, options *BatchOptions) (int32, error) {
	return c.UpsertBatchContext(context.Background(), collection, points, options)
}

// UpsertBatchContext is UpsertBatch with a context; its deadline is that of the whole.
func (c *Client) UpsertBatchContext(ctx context.Context, collection string, points []*Point, options *BatchOptions) (int32, error) {
	wanted := BatchOptions{}
	if options != nil {
		wanted = *options
	}
	if wanted.BatchSize <= 0 {
		wanted.BatchSize = batchSizeDefault
	}
	if wanted.Concurrency <= 0 {
		wanted.Concurrency = 1
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := make(chan []*Point)
	var lock sync.Mutex
	var group sync.WaitGroup
	var failure error
	stored := 0
	for i := 0; i < wanted.Concurrency; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for batch := range batches {
				_, err := c.UpsertContext(ctx, collection, batch)
				lock.Lock()
				if err == nil {
					stored += len(batch)
					if wanted.Progress != nil {
						wanted.Progress(stored)
					}
				} else if failure == nil {
					failure = err
					cancel()
				}
				lock.Unlock()
			}
		}()
	}
	sendBatches(ctx, points, wanted.BatchSize, batches)
	group.Wait()
	if failure == nil && ctx.Err() != nil && stored < len(points) {
		failure = toError(status.FromContextError(ctx.Err()).Err())
	}
	if failure != nil {
		return int32(stored), &BatchError{Stored: stored, Err: failure}
	}
	return int32(stored), nil
}

func sendBatches(ctx context.Context, points []*Point, size int, batches chan<- []*Point) {
	defer close(batches)
	for start := 0; start < len(points); start += size {
		end := start + size
		if end > len(points) {
			end = len(points)
		}
		select {
		case batches <- points[start:end]:
		case <-ctx.Done():
			return
		}
	}
}

// Get gives a point as it was stored, its vector bit for bit. ErrNotFound.
func (c *Client) Get(collection, id string) (*Point, error) {
	return c.GetContext(context.Background(), collection, id)
}

// GetContext is Get with a context.
func (c *Client) GetContext(ctx context.Context, collection, id string) (*Point, error) {
	got, err := call(ctx, c, true, func(ctx context.Context) (*vectronv1.GetResponse, error) {
		return c.service.Get(ctx, &vectronv1.GetRequest{Collection: collection, Id: id})
	})
	if err != nil {
		return nil, err
	}
	point := got.GetPoint()
	return &Point{point.GetId(), point.GetVector(), toPayload(point.GetDocument(), point.GetPayload())}, nil
}

// Delete removes a point; an id that is not there is no error.
func (c *Client) Delete(collection, id string) error {
	return c.DeleteContext(context.Background(), collection, id)
}

// DeleteContext is Delete with a context.
func (c *Client) DeleteContext(ctx context.Context, collection, id string) error {
	_, err := call(ctx, c, false, func(ctx context.Context) (*vectronv1.DeleteResponse, error) {
		return c.service.Delete(ctx, &vectronv1.DeleteRequest{Collection: collection, Id: id})
	})
	return err
}

// --- Search

func toRequest(collection string, vector []float32, options *SearchOptions) *vectronv1.SearchRequest {
	request := &vectronv1.SearchRequest{Collection: collection, Vector: vector, IncludeMetadata: true}
	if options != nil {
		request.TopK = options.TopK
		request.Query = options.Query
		request.IncludeMetadata = !options.WithoutPayload
		request.IncludeVectors = options.IncludeVectors
		request.Exact = options.Exact
		request.Ef = options.Ef
		request.TimeoutMs = uint32(options.ShardTimeout.Milliseconds())
		request.MaxStalenessMs = uint32(options.MaxStaleness.Milliseconds())
	}
	return request
}

func toResults(found []*vectronv1.SearchResult) []*SearchResult {
	results := make([]*SearchResult, len(found))
	for i, hit := range found {
		results[i] = &SearchResult{hit.GetId(), hit.GetScore(), toPayload(hit.GetDocument(), hit.GetPayload()),
			hit.GetVector(), hit.GetRerankScore()}
	}
	return results
}

// Search gives the topK nearest points, nearest first; 0 means 10.
func (c *Client) Search(collection string, vector []float32, topK uint32) ([]*SearchResult, error) {
	return c.SearchContext(context.Background(), collection, vector, topK)
}

// SearchContext is Search with a context.
func (c *Client) SearchContext(ctx context.Context, collection string, vector []float32, topK uint32) ([]*SearchResult, error) {
	return c.SearchWithOptionsContext(ctx, collection, vector, &SearchOptions{TopK: topK})
}

// SearchWithOptions is Search with options; nil: the usual ones.
func (c *Client) SearchWithOptions(collection string, vector []float32, options *SearchOptions) ([]*SearchResult, error) {
	return c.SearchWithOptionsContext(context.Background(), collection, vector, options)
}

// SearchWithOptionsContext is SearchWithOptions with a context.
func (c *Client) SearchWithOptionsContext(ctx context.Context, collection string, vector []float32, options *SearchOptions) ([]*SearchResult, error) {
	request := toRequest(collection, vector, options)
	got, err := call(ctx, c, true, func(ctx context.Context) (*vectronv1.SearchResponse, error) {
		return c.service.Search(ctx, request)
	})
	if err != nil {
		return nil, err
	}
	if options != nil && options.Coverage != nil {
		*options.Coverage = Coverage{got.GetShardsTotal(), got.GetShardsAnswered(),
			time.Duration(got.GetStalenessMs()) * time.Millisecond}
	}
	return toResults(got.GetResults()), nil
}

// SearchStream calls each for every hit, nearest first, while the rest is on its way; an error of each ends it
// and is returned.
func (c *Client) SearchStream(collection string, vector []float32, options *SearchOptions, each func(*SearchResult) error) error {
	return c.SearchStreamContext(context.Background(), collection, vector, options, each)
}

// SearchStreamContext is SearchStream with a context.
func (c *Client) SearchStreamContext(ctx context.Context, collection string, vector []float32, options *SearchOptions, each func(*SearchResult) error) error {
	ctx, cancel := c.withToken(ctx)
	defer cancel()
	stream, err := c.service.SearchStream(ctx, toRequest(collection, vector, options))
	if err != nil {
		return toError(err)
	}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return toError(err)
		}
		for _, hit := range toResults(message.GetResults()) {
			if err := each(hit); err != nil {
				return err
			}
		}
	}
}

// SubmitFeedback tells how good results were and returns the feedback's id.
func (c *Client) SubmitFeedback(collection string, feedback *Feedback) (string, error) {
	return c.SubmitFeedbackContext(context.Background(), collection, feedback)
}

// SubmitFeedbackContext is SubmitFeedback with a context.
func (c *Client) SubmitFeedbackContext(ctx context.Context, collection string, feedback *Feedback) (string, error) {
	request := &vectronv1.SubmitFeedbackRequest{Collection: collection, Query: feedback.Query,
		ResultIds: feedback.ResultIDs, Context: feedback.Context}
	for _, item := range feedback.Items {
		request.FeedbackItems = append(request.FeedbackItems, &vectronv1.FeedbackItem{ResultId: item.ResultID,
			RelevanceScore: item.RelevanceScore, Clicked: item.Clicked, Position: item.Position, Comment: item.Comment})
	}
	got, err := call(ctx, c, false, func(ctx context.Context) (*vectronv1.SubmitFeedbackResponse, error) {
		return c.service.SubmitFeedback(ctx, request)
	})
	return got.GetFeedbackId(), err
}
