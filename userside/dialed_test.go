package userside

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whoever wants to know is told where connections go.
func TestDialedIsToldTheAddress(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	var got []netip.Addr
	tr, err := newTransport(Options{Dialed: func(a netip.Addr) { got = append(got, a) }})
	require.NoError(t, err)
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get(srv.URL)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, got)
}
