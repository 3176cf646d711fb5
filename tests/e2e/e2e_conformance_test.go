package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	vectron "github.com/vectron/vectron/clientlibs/go"
)

const conformanceFolder = "../../clientlibs/conformance"

// step is one of a case; the folder's README says what its members mean.
type step struct {
	Call      string          `json:"call"`
	Args      json.RawMessage `json:"args"`
	Result    json.RawMessage `json:"result"`
	Error     string          `json:"error"`
	Holds     string          `json:"holds"`
	Role      string          `json:"role"`
	Only      string          `json:"only"`
	Tolerance *float64        `json:"tolerance"`
}

// arguments are those of every call.
type arguments struct {
	Name           string            `json:"name"`
	Dimension      int32             `json:"dimension"`
	Distance       string            `json:"distance"`
	Collection     string            `json:"collection"`
	ID             string            `json:"id"`
	Points         []*vectron.Point  `json:"points"`
	BatchSize      int               `json:"batch_size"`
	Concurrency    int               `json:"concurrency"`
	Vector         []float32         `json:"vector"`
	TopK           uint32            `json:"top_k"`
	Query          string            `json:"query"`
	IncludeVectors bool              `json:"include_vectors"`
	Exact          bool              `json:"exact"`
	Ef             uint32            `json:"ef"`
	ResultIDs      []string          `json:"result_ids"`
	Context        map[string]string `json:"context"`
	Items          []struct {
		ResultID       string `json:"result_id"`
		RelevanceScore int32  `json:"relevance_score"`
		Clicked        bool   `json:"clicked"`
		Position       int32  `json:"position"`
		Comment        string `json:"comment"`
	} `json:"items"`
}

// decodeStrictly reads JSON whose every member must be known: a runner that overlooks one tests nothing.
func decodeStrictly(data []byte, out any) error {
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.DisallowUnknownFields()
	return decoder.Decode(out)
}

func (a *arguments) searchOptions() *vectron.SearchOptions {
	return &vectron.SearchOptions{TopK: a.TopK, Query: a.Query, IncludeVectors: a.IncludeVectors, Exact: a.Exact, Ef: a.Ef}
}

// runStep calls the client and gives the result in the shape that the cases have.
func runStep(client *vectron.Client, call string, a *arguments) (any, error) {
	switch call {
	case "create_collection":
		return nil, client.CreateCollection(a.Name, a.Dimension, a.Distance)
	case "delete_collection":
		return nil, client.DeleteCollection(a.Name)
	case "list_collections":
		names, err := client.ListCollections()
		return append([]string{}, names...), err // none is a nil slice in Go, [] in the cases
	case "get_collection_status":
		found, err := client.GetCollectionStatus(a.Name)
		if err != nil {
			return nil, err
		}
		return map[string]any{"name": found.Name, "dimension": found.Dimension, "distance": found.Distance}, nil
	case "upsert":
		return client.Upsert(a.Collection, a.Points)
	case "upsert_batch":
		return client.UpsertBatch(a.Collection, a.Points,
			&vectron.BatchOptions{BatchSize: a.BatchSize, Concurrency: a.Concurrency})
	case "get":
		found, err := client.Get(a.Collection, a.ID)
		if err != nil {
			return nil, err
		}
		return map[string]any{"id": found.ID, "vector": found.Vector, "payload": found.Payload}, nil
	case "delete":
		return nil, client.Delete(a.Collection, a.ID)
	case "search":
		found, err := client.SearchWithOptions(a.Collection, a.Vector, a.searchOptions())
		return hitsOf(found), err
	case "search_stream":
		var found []*vectron.SearchResult
		err := client.SearchStream(a.Collection, a.Vector, a.searchOptions(), func(hit *vectron.SearchResult) error {
			found = append(found, hit)
			return nil
		})
		return hitsOf(found), err
	case "submit_feedback":
		feedback := &vectron.Feedback{Query: a.Query, ResultIDs: a.ResultIDs, Context: a.Context}
		for _, item := range a.Items {
			feedback.Items = append(feedback.Items, vectron.FeedbackItem(item))
		}
		return client.SubmitFeedback(a.Collection, feedback)
	}
	return nil, fmt.Errorf("the runner does not know the call %s", call)
}

func hitsOf(found []*vectron.SearchResult) []map[string]any {
	hits := make([]map[string]any, len(found))
	for i, hit := range found {
		hits[i] = map[string]any{"id": hit.ID, "score": hit.Score, "payload": hit.Payload, "vector": hit.Vector}
	}
	return hits
}

// differences says what is not as it should be; both sides as encoding/json decodes them.
func differences(found, wanted any, tolerance float64, where string) []string {
	var wrong []string
	switch want := wanted.(type) {
	case map[string]any:
		have, is := found.(map[string]any)
		if !is {
			return []string{fmt.Sprintf("%s is %v, not an object", where, found)}
		}
		for name, value := range want {
			if _, has := have[name]; !has {
				wrong = append(wrong, where+" has no "+name)
				continue
			}
			wrong = append(wrong, differences(have[name], value, tolerance, where+"."+name)...)
		}
	case []any:
		have, is := found.([]any)
		if !is || len(have) != len(want) {
			return []string{fmt.Sprintf("%s is %v, not a list of %d", where, found, len(want))}
		}
		for i := range want {
			wrong = append(wrong, differences(have[i], want[i], tolerance, fmt.Sprintf("%s[%d]", where, i))...)
		}
	case float64:
		have, is := found.(float64)
		far := math.Abs(have-want) > tolerance*math.Max(1e-30, math.Abs(want))
		if !is || (far && !(want == 0 && math.Abs(have) <= tolerance)) {
			wrong = append(wrong, fmt.Sprintf("%s is %v, not %v", where, found, want))
		}
	default:
		if !reflect.DeepEqual(found, wanted) {
			wrong = append(wrong, fmt.Sprintf("%s is %v, not %v", where, found, wanted))
		}
	}
	return wrong
}

// kinds are what errors of each code wrap.
var kinds = map[string]error{"invalid_argument": vectron.ErrInvalidArgument, "not_found": vectron.ErrNotFound,
	"already_exists": vectron.ErrAlreadyExists, "permission_denied": vectron.ErrPermissionDenied,
	"resource_exhausted": vectron.ErrResourceExhausted, "unavailable": vectron.ErrUnavailable,
	"unauthenticated": vectron.ErrAuthentication}

// judge says what is wrong with how a step came out; empty: nothing.
func judge(s *step, found any, err error) string {
	if s.Error != "" {
		kind, known := kinds[s.Error]
		var typed *vectron.Error
		switch {
		case !known:
			return "the runner does not know the error " + s.Error
		case err == nil:
			return fmt.Sprintf("gave %v instead of %s", found, s.Error)
		case !errors.Is(err, kind) || !errors.As(err, &typed) || typed.Code == codes.OK:
			return fmt.Sprintf("failed with %v, not %s", err, s.Error)
		case !strings.Contains(typed.Message, s.Holds):
			return fmt.Sprintf("failed with %v, whose text lacks %q", err, s.Holds)
		}
		return ""
	}
	if err != nil {
		return "failed: " + err.Error()
	}
	if s.Result == nil {
		return ""
	}
	data, err := json.Marshal(found)
	if err != nil {
		return err.Error()
	}
	var have, want any
	if err := json.Unmarshal(data, &have); err != nil {
		return err.Error()
	}
	if err := json.Unmarshal(s.Result, &want); err != nil {
		return err.Error()
	}
	tolerance := 1e-6
	if s.Tolerance != nil {
		tolerance = *s.Tolerance
	}
	return strings.Join(differences(have, want, tolerance, "result"), "; ")
}

func TestTheComparisonSeesDifferences(t *testing.T) {
	want := map[string]any{"id": "a", "score": 0.5, "list": []any{1.0, true}, "no": nil}
	with := func(name string, value any) map[string]any {
		have := map[string]any{"more": 1.0}
		for key := range want {
			have[key] = want[key]
		}
		have[name] = value
		return have
	}
	if wrong := differences(with("id", "a"), want, 1e-6, ""); wrong != nil {
		t.Fatal(wrong)
	}
	for name, value := range map[string]any{"id": "b", "score": 0.50001, "list": []any{1.0}, "no": 0.0} {
		if differences(with(name, value), want, 1e-6, "") == nil {
			t.Errorf("%s = %v passes", name, value)
		}
	}
	if differences(with("score", "0.5"), want, 1e-6, "") == nil || differences(with("list", []any{1.0, 1.0}), want, 1e-6, "") == nil {
		t.Error("another type passes")
	}
}

// TestConformance runs the cases of clientlibs/conformance, each by a new user.
func TestConformance(t *testing.T) {
	c := startCluster(t)
	files, err := filepath.Glob(conformanceFolder + "/*.json")
	must(t, err)
	if len(files) < 6 {
		t.Fatalf("only %d cases in %s", len(files), conformanceFolder)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) { runCase(t, c, file) })
	}
}

func runCase(t *testing.T, c *cluster, file string) {
	data, err := os.ReadFile(file)
	must(t, err)
	var steps []step
	must(t, decodeStrictly(data, &steps))
	u := c.makeUser(t)
	clients := map[string]*vectron.Client{}
	for i := range steps {
		s := &steps[i]
		if s.Only != "" && s.Only != "grpc" {
			continue
		}
		if s.Role == "" {
			s.Role = "owner"
		}
		if clients[s.Role] == nil {
			clients[s.Role] = conformanceClient(t, c, u, s.Role)
		}
		var a arguments
		must(t, decodeStrictly(s.Args, &a))
		found, err := runStep(clients[s.Role], s.Call, &a)
		if wrong := judge(s, found, err); wrong != "" {
			t.Fatalf("step %d, %s: %s", i+1, s.Call, wrong)
		}
	}
}

func conformanceClient(t *testing.T, c *cluster, u *user, role string) *vectron.Client {
	t.Helper()
	var token string
	switch role {
	case "nobody":
		token = "nonsense"
	case "login":
		token = u.login
	default:
		_, token = c.makeKey(t, u, role, role)
	}
	client, err := vectron.NewClient(c.grpcAddress, token)
	must(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}
