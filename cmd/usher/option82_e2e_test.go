package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/userside/emulator"
)

// An operator's way: a switch counts its ports from 3, its customers get nothing,
// suggest says so, the proposed lines go into the configuration, and the customer has its address.
func TestKernelOption82FromSuggestionToLease(t *testing.T) {
	t.Parallel()
	w := worldWithoutRelay(t, miniature.Options{Homes: 1, Customers: 200})
	require.NoError(t, w.StartAgent(t.Context()))
	conn, err := w.Access.ListenPacket(miniature.GatewayIP + ":67")
	require.NoError(t, err)
	defer conn.Close()
	macs := map[int64]emulator.MAC{}
	for _, d := range w.ERP.Devices() {
		macs[d.ID] = d.MAC
	}
	place := func(mac emulator.MAC, port uint16) string { return fmt.Sprintf("%x/%d", mac, port) }
	bound := map[string]bool{}
	for _, c := range w.ERP.Customers() {
		for _, l := range c.Links {
			bound[place(macs[l.Device], uint16(l.Port))] = true
		}
	}
	targets := relayTargets(w.ERP)
	i := slices.IndexFunc(targets, func(r relayTarget) bool { return !bound[place(r.remote, r.port+2)] })
	require.NotEqual(t, -1, i, "a customer whose port byte names nobody's port")
	target := targets[i]
	sent := target
	sent.port += 2
	mac := net.HardwareAddr{0x00, 0x00, 0x5e, 0x00, 0x53, 0x77}
	_, err = sent.lease(t.Context(), conn, mac, 300*time.Millisecond)
	require.ErrorContains(t, err, "answered by silence")

	code, out, stderr := runCLI(t, "option82", "suggest", "--socket", w.Socket(), "--output", "json")
	require.Zero(t, code, stderr)
	var unknown console.Option82Unknowns
	require.NoError(t, json.Unmarshal([]byte(out), &unknown))
	require.Len(t, unknown.Unknown, 1)
	u := unknown.Unknown[0]
	require.Equal(t, "unknown_port", u.Outcome)
	require.Contains(t, u.Config, "use: cisco-catalyst}")
	_, out, _ = runCLI(t, "option82", "suggest", "--socket", w.Socket())
	require.Contains(t, out, u.Option82.String())
	require.Contains(t, out, "use: cisco-catalyst}")

	good, err := os.ReadFile(w.ConfigPath())
	require.NoError(t, err)
	lines := strings.TrimPrefix(u.Config, "dhcp:\n")
	require.NoError(t, os.WriteFile(w.ConfigPath(), []byte(strings.Replace(string(good), "dhcp:\n", "dhcp:\n"+lines, 1)), 0o600))
	require.NoError(t, w.Agent.Signal(syscall.SIGHUP))
	eventually(t, 5*time.Second, "the agent reloads", func() (bool, error) {
		return strings.Contains(w.Agent.Log(), "configuration reloaded"), nil
	})
	got, err := sent.lease(t.Context(), conn, mac, 2*time.Second)
	require.NoError(t, err)
	require.Equal(t, target.ip, got)

	code, out, stderr = runCLI(t, "option82", u.Option82.String(), "--giaddr", "198.51.100.1", "--socket", w.Socket())
	require.Zero(t, code, stderr)
	require.Contains(t, out, "A DISCOVER now would end in offer")
	require.Contains(t, out, target.ip.String())
	_, out, _ = runCLI(t, "explain", target.ip.String(), "--socket", w.Socket())
	require.Contains(t, out, "read by profile device-")
}
