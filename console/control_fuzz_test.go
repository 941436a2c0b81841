package console

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/acl"
)

// Whoever may open the socket may send anything: nothing panics, every answer is
// JSON, and no fault of the caller's is one of the agent's.
func FuzzControl(f *testing.F) {
	for _, target := range []string{
		"/v1/status", "/v1/explain?q=198.51.100.11", "/v1/explain?q=00:00:5e:00:53:11", "/v1/explain?q=1001", "/v1/option82?value=0106000400640018&giaddr=192.0.2.1&mac=00005e005301",
		"/v1/option82/unknown", "/v1/pools?name=guests", "/v1/guard", "/v1/routes", "/v1/acl", "/v1/acl/subject?q=1002", "/v1/acl/nft", "/v1/acl/diff?limit=2", "/v2/%zz",
	} {
		f.Add(false, target, []byte(nil))
	}
	f.Add(true, "/v1/guard/accept", []byte(`{"fingerprint": "abc"}`))
	f.Add(true, "/v1/guard/reject", []byte(nil))
	f.Add(true, "/v1/customer/1001/state", []byte(`{"state": "pause"}`))
	f.Add(true, "/v1/customer/-9/state", []byte(`{"state": 7}`))
	f.Add(true, "/v1/acl/open", []byte(`{"for_seconds": 60, "reason": "x"}`))
	f.Add(true, "/v1/acl/close", []byte("{"))
	w := newWorld(f)
	deps := &fakeACL{now: w.Now, view: acl.View{Exists: true}}
	w.ACL = &ACLDeps{Wishes: deps, Kernel: deps, Maintenance: deps, Exempt: deps.exempt}
	api := NewControl(w.Deps)
	f.Fuzz(func(t *testing.T, post bool, target string, body []byte) {
		if !strings.HasPrefix(target, "/") {
			return
		}
		if _, err := url.ParseRequestURI(target); err != nil {
			return // net/http answers it
		}
		method := http.MethodGet
		if post {
			method = http.MethodPost
		}
		req, err := http.NewRequestWithContext(t.Context(), method, "http://usher"+target, bytes.NewReader(body))
		if err != nil {
			return
		}
		rec := httptest.NewRecorder()
		api.ServeHTTP(rec, req)
		if rec.Code < 300 || rec.Code >= 400 { // the mux cleans paths by redirection
			require.True(t, json.Valid(rec.Body.Bytes()), "%d %q", rec.Code, rec.Body)
		}
		require.NotEqual(t, http.StatusInternalServerError, rec.Code, "%q", rec.Body)
		if open := deps.until; !open.IsZero() {
			require.False(t, open.After(w.now.Add(acl.MaxOpen)), "open until %s", open)
		}
		deps.until = time.Time{}
		for _, st := range w.syncer.overrides {
			_, known := st.ERP()
			require.True(t, known, "state %v", st)
		}
		w.syncer.overrides, w.syncer.decided = nil, nil
	})
}
