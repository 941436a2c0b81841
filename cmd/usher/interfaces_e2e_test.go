package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
)

// The whole agent answers only while its host has the address that keepalived
// would move, serves an interface that comes later, and says both.
func TestKernelAgentFollowsInterfacesAndTheSharedAddress(t *testing.T) {
	w := startWorld(t, miniature.Options{Homes: 1, Extra: "acl: {enabled: false}\n"})
	text, err := os.ReadFile(w.ConfigPath())
	require.NoError(t, err)
	config := strings.Replace(string(text), "dhcp:\n", "dhcp:\n  answer_while_holding: 192.0.2.254\n  server_id: 192.0.2.77\n", 1)
	config = strings.Replace(config, "interfaces: [access", "interfaces: [access, \"late*\"", 1)
	require.NoError(t, os.WriteFile(w.ConfigPath(), []byte(config), 0o600))
	require.NoError(t, w.StartAgent(t.Context()))
	require.Contains(t, w.Agent.Log(), "server identifiers that are no address of this host")
	require.Contains(t, w.Agent.Log(), `"key":"dhcp.interfaces[1]","warning":"no interface of this host fits \"late*\"`)
	out, err := w.Router.Output(t.Context(), w.Program, "status", "--socket", w.Socket())
	require.NoError(t, err)
	require.Regexp(t, `interfaces +\S*usher.yaml:\d+:\d+: dhcp.interfaces\[1\]: no interface of this host fits "late\*"`, out)
	out, err = w.Router.Output(t.Context(), w.Program, "check", "--config", w.ConfigPath())
	require.NoError(t, err, "a warning")
	require.Contains(t, out, ": good: ")
	sockets := w.status(t).DHCP.Sockets
	require.True(t, sockets.Standby)
	require.Equal(t, []string{"access"}, sockets.Names)
	require.Len(t, sockets.ForeignServerIDs, 1)

	p, err := w.DHCPClient(w.Homes[0])
	require.NoError(t, err)
	eventually(t, 10*time.Second, "a packet is left to the other router", func() (bool, error) {
		for _, o := range w.status(t).DHCP.Outcomes {
			if o.Outcome == "standby" {
				return true, nil
			}
		}
		return false, nil
	})
	require.NotContains(t, p.Log(), "bound")
	require.NoError(t, w.Router.IP("addr", "add", "192.0.2.254/32", "dev", "lo"))
	require.NoError(t, w.Router.IP("addr", "add", "192.0.2.77/32", "dev", "lo"))
	eventually(t, 15*time.Second, "the client has its address", func() (bool, error) {
		return strings.Contains(p.Log(), "bound ") && strings.Contains(p.Log(), "serverid=192.0.2.77"), nil
	})

	require.NoError(t, w.Router.IP("link", "add", "late0", "type", "veth", "peer", "name", "late-end"))
	eventually(t, 5*time.Second, "the new interfaces are served", func() (bool, error) {
		s := w.status(t).DHCP.Sockets
		return s.Served == 3 && !s.Standby && len(s.ForeignServerIDs) == 0, nil
	})
	out, err = w.Router.Output(t.Context(), w.Program, "status", "--socket", w.Socket())
	require.NoError(t, err)
	require.NotContains(t, out, "no interface of this host fits", "they have come")
	require.Contains(t, out, "interfaces served: access, late-end, late0")
}
