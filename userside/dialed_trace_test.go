package userside

import (
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// A request that has a trace of its own, as each write to the ERP has, leaves nothing of it to the requests after it and beside it.
func TestTracesOfRequestsAreApart(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	var dialed atomic.Int32
	client := &http.Client{Transport: telling(http.DefaultTransport, func(netip.Addr) { dialed.Add(1) })}
	var wg sync.WaitGroup
	var got [10]atomic.Int32
	for i := range got {
		wg.Go(func() {
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { got[i].Add(1) }})
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL, nil)
			if err != nil {
				t.Error(err)
				return
			}
			res, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			_ = res.Body.Close()
		})
	}
	wg.Wait()
	for i := range got {
		require.EqualValues(t, 1, got[i].Load())
	}
	require.EqualValues(t, len(got), dialed.Load())
}
