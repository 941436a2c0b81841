package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
)

// A relay of the configuration to which no route leads is told before it was ever heard, for the kernel
// drops its packets.
func TestKernelAgentTellsOfARelayThatTheKernelDrops(t *testing.T) {
	t.Parallel()
	w := startWorld(t, miniature.Options{Homes: 1, Extra: "acl: {enabled: false}\n"})
	require.NoError(t, w.Router.Sysctl("net.ipv4.conf.access.rp_filter", "1"))
	require.NoError(t, w.Router.IP("route", "add", "unreachable", "10.0.0.2/32"))
	require.NoError(t, w.StartAgent(t.Context()))
	eventually(t, 10*time.Second, "the relay is found", func() (bool, error) { return len(w.status(t).DHCP.WaysBack) == 1, nil })
	out, err := w.Router.Output(t.Context(), w.Program, "status", "--socket", w.Socket())
	require.NoError(t, err)
	require.Contains(t, out, "the relay 10.0.0.2 was not heard, and no route leads to it: on access the kernel drops its packets (rp_filter 1)")
	require.Contains(t, w.Agent.Log(), "the kernel drops the packets of a relay")
	page, err := w.Router.Output(t.Context(), "curl", "-s", "http://"+miniature.ConsoleAddr+"/")
	require.NoError(t, err)
	require.Contains(t, page, "relays not heard")
}
