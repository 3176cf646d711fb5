package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	vectron "github.com/vectron/vectron/clientlibs/go"
	"github.com/vectron/vectron/clientlibs/go/api/authv1"
	"github.com/vectron/vectron/clientlibs/go/api/vectronv1"
)

// Every route of the auth service and of the gateway, with both kinds of token in the right and in the wrong
// place.
func TestNewRoutes(t *testing.T) {
	c := startCluster(t)
	t.Run("account", func(t *testing.T) { account(t, c) })
	t.Run("keys", func(t *testing.T) { keys(t, c) })
	t.Run("data", func(t *testing.T) { data(t, c) })
	t.Run("data over HTTP", func(t *testing.T) { dataOverHTTP(t, c) })
	t.Run("tokens in the wrong place", func(t *testing.T) { wrongPlaces(t, c) })
	t.Run("owners do not see each other", func(t *testing.T) { owners(t, c) })
	t.Run("the end of a user", func(t *testing.T) { endOfUser(t, c) })
}

func account(t *testing.T, c *cluster) {
	u := c.makeUser(t)
	_, err := c.auth.RegisterUser(by(""), &authv1.RegisterUserRequest{Email: u.email, Password: password})
	wantCode(t, err, codes.AlreadyExists)
	_, err = c.auth.Login(by(""), &authv1.LoginRequest{Email: u.email, Password: "Wrong-horse-7"})
	wantCode(t, err, codes.Unauthenticated)
	profile, err := c.auth.GetUserProfile(by(u.login), &authv1.GetUserProfileRequest{})
	must(t, err)
	if profile.User.Email != u.email || profile.User.Plan != authv1.Plan_FREE {
		t.Fatal(profile.User)
	}
	changed, err := c.auth.UpdateUserProfile(by(u.login), &authv1.UpdateUserProfileRequest{Plan: authv1.Plan_PAID})
	must(t, err)
	if changed.User.Plan != authv1.Plan_PAID || changed.JwtToken == "" {
		t.Fatal(changed)
	}
	// Over gRPC the token goes in the header "authorization" alone; refreshing is of HTTP.
	code, answer := c.http(t, http.MethodPost, "http://"+c.httpAddress+"/v1/auth/refresh", u.login, nil)
	if code != http.StatusOK || answer["jwtToken"] == "" {
		t.Fatal(code, answer)
	}
	_, err = c.auth.ChangePassword(by(u.login), &authv1.ChangePasswordRequest{OldPassword: "x", NewPassword: password})
	wantCode(t, err, codes.PermissionDenied)
}

func keys(t *testing.T, c *cluster) {
	u := c.makeUser(t)
	second, secondToken := c.makeKey(t, u, "second", "reader")
	listed, err := c.auth.ListAPIKeys(by(u.login), &authv1.ListAPIKeysRequest{})
	must(t, err)
	if len(listed.Keys) != 2 {
		t.Fatal(listed.Keys)
	}
	again, err := c.auth.CreateSDKJWT(by(u.login), &authv1.CreateSDKJWTRequest{ApiKeyId: second.KeyPrefix})
	must(t, err)
	for _, token := range []string{secondToken, again.SdkJwt} {
		_, err = c.data.ListCollections(by(token), &vectronv1.ListCollectionsRequest{})
		must(t, err)
	}
	_, err = c.data.CreateCollection(by(secondToken), &vectronv1.CreateCollectionRequest{Name: "r", Dimension: 2})
	wantCode(t, err, codes.PermissionDenied) // a reader
	_, err = c.auth.DeleteAPIKey(by(u.login), &authv1.DeleteAPIKeyRequest{KeyPrefix: second.KeyPrefix})
	must(t, err)
	deadline := time.Now().Add(time.Second)
	for err == nil && time.Now().Before(deadline.Add(time.Second)) {
		_, err = c.data.ListCollections(by(secondToken), &vectronv1.ListCollectionsRequest{})
	}
	wantCode(t, err, codes.Unauthenticated)
	if time.Now().After(deadline) {
		t.Fatal("the deleted key was taken for more than a second")
	}
	_, err = c.data.ListCollections(by(u.sdk), &vectronv1.ListCollectionsRequest{})
	must(t, err) // the other key goes on
	_, err = c.auth.DeleteAPIKey(by(u.login), &authv1.DeleteAPIKeyRequest{KeyPrefix: "unknown"})
	wantCode(t, err, codes.NotFound)
}

func data(t *testing.T, c *cluster) {
	u := c.makeUser(t)
	client, err := vectron.NewClient(c.grpcAddress, u.sdk)
	must(t, err)
	defer client.Close()
	must(t, client.CreateCollection("d", 2, "euclidean"))
	points := make([]*vectron.Point, 500)
	for i := range points {
		points[i] = &vectron.Point{ID: fmt.Sprint(i), Vector: []float32{float32(i), 0},
			Payload: map[string]any{"i": float64(i)}}
	}
	count, err := client.UpsertBatch("d", points, &vectron.BatchOptions{BatchSize: 100, Concurrency: 3})
	must(t, err)
	if count != 500 {
		t.Fatal(count)
	}
	hits, err := client.Search("d", []float32{42, 0}, 3)
	must(t, err)
	if len(hits) != 3 || hits[0].ID != "42" || hits[0].Payload["i"] != 42.0 {
		t.Fatal(hits[0])
	}
	status, err := client.GetCollectionStatus("d")
	must(t, err)
	if status.Dimension != 2 || len(status.Shards) == 0 {
		t.Fatal(status)
	}
	must(t, client.Delete("d", "42"))
	if _, err = client.Get("d", "42"); err == nil {
		t.Fatal("a deleted point is there")
	}
	names, err := client.ListCollections()
	must(t, err)
	if strings.Join(names, ",") != "d" {
		t.Fatal(names)
	}
	must(t, client.DeleteCollection("d"))
}

func dataOverHTTP(t *testing.T, c *cluster) {
	u := c.makeUser(t)
	at := func(path string) string { return "http://" + c.httpAddress + path }
	want := func(method, path string, body any, wanted int) map[string]any {
		t.Helper()
		code, answer := c.http(t, method, at(path), u.sdk, body)
		if code != wanted {
			t.Fatalf("%s %s: %d %v", method, path, code, answer)
		}
		return answer
	}
	type object = map[string]any
	want("POST", "/v1/collections", object{"name": "h", "dimension": 2}, 200)
	want("POST", "/v1/collections", object{"name": "h", "dimension": 2}, 409)
	want("POST", "/v1/collections/h/points", object{"points": []object{
		{"id": "a", "vector": []float64{1, 2}, "payload": object{"deep": []any{1, "x"}}}}}, 200)
	found := want("POST", "/v1/collections/h/points/search", object{"vector": []float64{1, 2}, "topK": 1}, 200)
	if found["results"].([]any)[0].(object)["id"] != "a" {
		t.Fatal(found)
	}
	want("GET", "/v1/collections/h/points/a", nil, 200)
	want("GET", "/v1/collections/h/points/b", nil, 404)
	want("GET", "/v1/collections/h/status", nil, 200)
	want("GET", "/v1/collections", nil, 200)
	want("POST", "/v1/feedback", object{"collection": "h", "query": "q",
		"feedbackItems": []object{{"resultId": "a", "relevanceScore": 4}}}, 200)
	want("DELETE", "/v1/collections/h/points/a", nil, 200)
	want("POST", "/v1/collections/h/points", object{"pionts": 1}, 400)
	want("DELETE", "/v1/collections/h", nil, 200)
}

func wrongPlaces(t *testing.T, c *cluster) {
	u := c.makeUser(t)
	for name, token := range map[string]string{"none": "", "garbage": "x.y.z", "a login token": u.login} {
		_, err := c.data.ListCollections(by(token), &vectronv1.ListCollectionsRequest{})
		if err == nil {
			t.Errorf("%s opened the data service", name)
		}
		wantCode(t, err, codes.Unauthenticated)
	}
	_, err := c.auth.GetUserProfile(by(u.sdk), &authv1.GetUserProfileRequest{})
	wantCode(t, err, codes.PermissionDenied)
	_, err = c.auth.CreateAPIKey(by(u.sdk), &authv1.CreateAPIKeyRequest{Name: "x"})
	wantCode(t, err, codes.PermissionDenied)
	_, err = c.auth.ListAPIKeys(by(""), &authv1.ListAPIKeysRequest{})
	wantCode(t, err, codes.Unauthenticated)
	code, _ := c.http(t, http.MethodGet, "http://"+c.httpAddress+"/v1/keys", u.sdk, nil)
	if code != http.StatusForbidden {
		t.Fatal(code)
	}
	// Internal calls are for the services alone, whatever the token.
	_, err = c.auth.ValidateAPIKey(by(u.login), &authv1.ValidateAPIKeyRequest{FullKey: "x"})
	wantCode(t, err, codes.PermissionDenied)
	if strings.Contains(u.sdk, u.key.KeyPrefix+"_") {
		t.Fatal("the token shows a raw key")
	}
}

func owners(t *testing.T, c *cluster) {
	one, other := c.makeUser(t), c.makeUser(t)
	_, err := c.data.CreateCollection(by(one.sdk), &vectronv1.CreateCollectionRequest{Name: "mine", Dimension: 2})
	must(t, err)
	_, err = c.data.Search(by(other.sdk), &vectronv1.SearchRequest{Collection: "mine", Vector: []float32{1, 2}})
	wantCode(t, err, codes.NotFound)
	_, err = c.data.GetCollectionStatus(by(other.sdk), &vectronv1.GetCollectionStatusRequest{Name: "mine"})
	wantCode(t, err, codes.NotFound)
	_, err = c.data.CreateCollection(by(other.sdk), &vectronv1.CreateCollectionRequest{Name: "mine", Dimension: 9})
	must(t, err) // names are the owner's own
}

func endOfUser(t *testing.T, c *cluster) {
	u := c.makeUser(t)
	_, err := c.auth.DeleteUser(by(u.login), &authv1.DeleteUserRequest{Password: "Wrong-horse-7"})
	wantCode(t, err, codes.PermissionDenied)
	_, err = c.auth.DeleteUser(by(u.login), &authv1.DeleteUserRequest{Password: password})
	must(t, err)
	deadline := time.Now().Add(2 * time.Second)
	for err == nil && time.Now().Before(deadline) {
		_, err = c.data.ListCollections(by(u.sdk), &vectronv1.ListCollectionsRequest{})
	}
	wantCode(t, err, codes.Unauthenticated)
	_, err = c.auth.Login(by(""), &authv1.LoginRequest{Email: u.email, Password: password})
	wantCode(t, err, codes.Unauthenticated)
}
