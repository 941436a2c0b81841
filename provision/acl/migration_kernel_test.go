package acl_test

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/acl"
)

// The table of the schema before is replaced while a stopped subscriber and another one
// send without a pause: nothing of the one passes and nothing of the other is lost, at
// each of many changes between the two schemas.
func TestKernelMigrationHasNoGap(t *testing.T) {
	const file = "schema2-portal.netlink" // 100.64.0.1 is stopped in it, 100.64.1.1 is not
	policy := acl.WrittenBefore[file]
	n := newISP(t, masquerade)
	table := n.openWith(acl.Options{Policy: policy})
	// In one batch too, without the maintenance that is on in what was recorded.
	old := slices.DeleteFunc(acl.Replacing(t, acl.ReadWritten(t, file)), func(m netlink.Message) bool {
		return m.Header.Type&0xff == unix.NFT_MSG_NEWSETELEM && bytes.Contains(m.Data, []byte("\x00open\x00"))
	})
	n.send(old)
	require.Contains(t, n.list(), "schema 2")
	require.NotContains(t, n.list(), "expires")
	passed := n.passed()
	stopped, err := n.first.Start("ping", "-n", "-q", "-i", "0.001", serverIP)
	require.NoError(t, err)
	other, err := n.second.Start("ping", "-n", "-q", "-i", "0.002", serverIP)
	require.NoError(t, err)
	for range 20 {
		observe(t, table)
		require.Contains(t, n.list(), "schema 3")
		holds, _, err := table.Holds(t.Context(), n.firstAddr)
		require.NoError(t, err)
		require.True(t, holds)
		n.send(old)
	}
	counts := func(log string) (sent, received int) {
		m := regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`).FindStringSubmatch(log)
		require.NotNil(t, m, log)
		sent, _ = strconv.Atoi(m[1])
		received, _ = strconv.Atoi(m[2])
		return sent, received
	}
	require.NoError(t, stopped.Signal(syscall.SIGINT))
	require.NoError(t, other.Signal(syscall.SIGINT))
	_ = stopped.Wait(t.Context())
	_ = other.Wait(t.Context())
	sent, received := counts(stopped.Log())
	require.Greater(t, sent, 50)
	require.Zero(t, received)
	require.Equal(t, passed, n.passed(), "packets of the stopped one passed")
	sent, received = counts(other.Log())
	require.Greater(t, sent, 50)
	require.LessOrEqual(t, sent-received, 1)
}
