package userside

import (
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whoever wants to know is told where connections go.
func TestDialedIsToldTheAddress(t *testing.T) {
	var got []netip.Addr
	srv := newTestServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"result":"OK","data":{}}`) })
	c := newTestClient(t, srv, func(o *Options) { o.Dialed = func(a netip.Addr) { got = append(got, a) } })
	require.NoError(t, c.Try(ctx, "customer", "get_list", nil, false))
	require.Equal(t, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, got)
}

// Whoever is at an address that was given for the ERP's name is not the ERP before his
// certificate says so.
func TestDialedIsNotToldOfWhoIsNotVerified(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"result":"OK","data":{}}`) }))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	var connections atomic.Int32
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	var got []netip.Addr
	dialed := func(o *Options) { o.Dialed = func(a netip.Addr) { got = append(got, a) } }
	ask := func(c *Client) error { return c.Try(ctx, "customer", "get_list", nil, false) }
	require.ErrorContains(t, ask(newTestClient(t, &testServer{Server: srv}, dialed)), "certificate")
	require.Empty(t, got)

	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600))
	c := newTestClient(t, &testServer{Server: srv}, dialed, func(o *Options) { o.CAFile = ca })
	connections.Store(0)
	for range 2 {
		require.NoError(t, ask(c))
	}
	require.Equal(t, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, slices.Compact(got))
	require.EqualValues(t, 1, connections.Load())
	c.CloseIdle()
	require.NoError(t, ask(c))
	require.EqualValues(t, 2, connections.Load(), "idle ones are closed by whoever asks for it")
}
