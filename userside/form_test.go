package userside

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadForm(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     Form
	}{
		{"modern, shape A", `{"result":"OK","data":[{"customer_id":1,"ip":"167772170"}]}`, Form{Envelope: EnvelopeModern, Shape: "A"}},
		{"legacy, shape E", `{"Result":"OK","Data":[{"usercode":1,"userip":"167772170","devcode":3}]}`, Form{Envelope: EnvelopeLegacy, Shape: "E"}},
		{"shape B", `{"result":"OK","data":{"167772170":{"customer_id":1,"mac":""},"0":{"customer_id":2,"mac":"00005e005301"}}}`, Form{Envelope: EnvelopeModern, Shape: "B"}},
		{"shape B, dotted", `{"result":"OK","data":{"192.0.2.1":{"customer_id":1,"mac":""}}}`, Form{Envelope: EnvelopeModern, Shape: "B"}},
		{"shape C, rows", `{"result":"OK","data":{"1001":{"ip":"167772170"},"1002":[{"ip":"167772171"}]}}`, Form{Envelope: EnvelopeModern, Shape: "C"}},
		{"shape C, halves", `{"result":"OK","data":{"1001":{"ip_mac":{},"commutation":[]}}}`, Form{Envelope: EnvelopeModern, Shape: "C"}},
		{"shape D", `{"result":"OK","data":{"6001":{"1":{"customer_id":1,"ip":"167772170"},"2":[{"customer_id":2,"ip":"167772171"}]}}}`, Form{Envelope: EnvelopeModern, Shape: "D"}},
		{"shape F", `{"result":"OK","data":[]}`, Form{Envelope: EnvelopeModern, Shape: "F"}},
		{"shape F without data", `{"Result":"OK"}`, Form{Envelope: EnvelopeLegacy, Shape: "F"}},
		{"unknown", `{"result":"OK","data":[{"strange":"x"}]}`, Form{Envelope: EnvelopeModern, Shape: "unknown"}},
		{"bare", `{"1":{"id":1}}`, Form{Envelope: EnvelopeBare, Shape: "unknown"}},
		{"byte order mark", "\ufeff" + `{"result":"OK"}`, Form{Envelope: EnvelopeModern, Shape: "F", BOM: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ReadForm([]byte(c.in))
			require.NoError(t, err)
			require.Equal(t, int64(len(c.in)), got.Bytes)
			require.NotContains(t, got.Fingerprint, "167772170")
			if c.want.Shape == "unknown" {
				require.NotEmpty(t, got.Fingerprint)
			}
			got.Bytes, got.Fingerprint = 0, ""
			require.Equal(t, c.want, got)

			var packed bytes.Buffer
			z := gzip.NewWriter(&packed)
			_, err = z.Write([]byte(c.in))
			require.NoError(t, err)
			require.NoError(t, z.Close())
			got, err = ReadForm(packed.Bytes())
			require.NoError(t, err)
			require.True(t, got.Gzip)
			require.Equal(t, c.want.Shape, got.Shape)
		})
	}
	for _, in := range []string{"", "<html>", `{"result":"OK","data":[{"ip":`, "\x1f\x8b", `[1] 2`} {
		_, err := ReadForm([]byte(in))
		require.Error(t, err, in)
	}
}

func FuzzReadForm(f *testing.F) {
	for _, s := range []string{`{"result":"OK","data":[{"customer_id":1,"ip":"167772170"}]}`, `{"data":{"6001":{"1":[{"ip":1}]}}}`, "\x1f\x8b\x08", "\ufeff[", `{"":{"":{}}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		form, err := ReadForm(in)
		if err == nil && (form.Shape == "" || form.Envelope == "") {
			t.Fatalf("%+v", form)
		}
	})
}

func TestTryTellsWhatTheServerSays(t *testing.T) {
	for _, c := range []struct {
		name, category string
		status         int
		body           string
		want           error
	}{
		{"good", "customer", 200, `{"result":"OK"}`, nil},
		{"bare", "module", 200, `{"1":{"id":1}}`, nil},
		{"bare and empty", "module", 200, `[]`, nil},
		{"forbidden", "module", 403, `{"result":"ERROR","error":"no"}`, ErrPermission},
		{"refused", "customer", 200, `{"Result":"ERROR","ErrorText":"no"}`, ErrRefused},
		{"refused by a module", "module", 200, `{"error":"unknown_method"}`, ErrRefused},
		{"page", "customer", 200, "<html>", ErrMalformed},
		{"busy", "customer", 503, "", ErrUnavailable},
	} {
		for _, post := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				s := newTestServer(t, func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(c.status)
					_, _ = io.WriteString(w, c.body)
				})
				var heard []Heard
				client, err := New(Options{URL: s.URL + "/api.php", Key: testKey, Transport: &Tap{Next: http.DefaultTransport, Heard: func(h Heard) { heard = append(heard, h) }}})
				require.NoError(t, err)
				err = client.Try(context.Background(), c.category, "get_x", url.Values{"a": {"b c"}}, post)
				if c.want == nil {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, c.want)
					require.NotContains(t, err.Error(), testKey)
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				require.Len(t, s.calls, 1)
				require.Equal(t, map[bool]string{false: "GET", true: "POST"}[post], s.calls[0].method)
				require.Equal(t, "b c", s.calls[0].arg("a"))
				require.Equal(t, testKey, s.calls[0].query.Get("key"))
				require.Equal(t, []Heard{{Category: c.category, Action: "get_x", Method: s.calls[0].method, Status: c.status, Form: heard[0].Form, Err: heard[0].Err, Took: heard[0].Took}}, heard)
			})
		}
	}
}

func TestTapHandsOnWhatBreaks(t *testing.T) {
	s := newTestServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"result":`)
	})
	tap := &Tap{Next: http.DefaultTransport, Heard: func(h Heard) { require.Error(t, h.Err) }}
	resp, err := (&http.Client{Transport: tap}).Get(s.URL + "/api.php?cat=a&action=b")
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, `{"result":`, string(b))
}
