package acl_test

import (
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
)

// The nftables library ends the program where the number of its socket is 1024 or more, and a
// portal has more connections than that.
func TestKernelManyDescriptors(t *testing.T) {
	r := newRouter(t)
	table := r.open()
	observe(t, table)
	for range 1100 {
		f, err := os.Open(os.DevNull)
		require.NoError(t, err)
		t.Cleanup(func() { _ = f.Close() })
	}
	for i := range 20 {
		r.nft("delete", "table", "inet", "usher") // the next batch fails, and its sockets are opened anew
		apply(t, table, add(access.SetStopped, subscribers(i, 1)...))
		observe(t, table)
	}
	other := newRouterNamed(t, "other")
	other.open()
	reader := acl.NewReader(acl.Options{NetNS: other.namespace()})
	defer reader.Close()
	_, err := reader.Sets(t.Context(), netip.MustParseAddr("100.64.0.1"))
	require.NoError(t, err)
}
