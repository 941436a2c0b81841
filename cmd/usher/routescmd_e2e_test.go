package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision/route"
)

func TestKernelRoutesCommands(t *testing.T) {
	t.Parallel()
	u := startUnnumbered(t, 2, unnumberedConfig)
	require.NoError(t, u.StartAgent(t.Context()))
	a, b := u.subs[0], u.subs[1]
	pa := u.bound(t, a)
	u.bound(t, b)
	u.waitRoute(t, a, "cust1")
	u.waitRoute(t, b, "cust2")
	require.NoError(t, u.Router.IP("route", "add", "192.0.2.99/32", "dev", "cust2", "proto", "static"))
	usher := func(args ...string) (string, error) {
		return u.Router.Output(t.Context(), u.Program, append(args, "--socket", u.Socket(), "--config", u.ConfigPath())...)
	}
	view := func(args ...string) (v console.RoutesView) {
		t.Helper()
		out, err := usher(append([]string{"routes", "show", "--output", "json"}, args...)...)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal([]byte(out), &v))
		return v
	}

	v := view()
	require.True(t, v.Agent && v.Enabled)
	require.EqualValues(t, 207, v.Protocol)
	require.Equal(t, map[route.State]int{route.Installed: 2}, v.Counts)
	require.Equal(t, "cust1", v.Routes[0].Interface)
	require.False(t, v.Routes[0].Expires.IsZero())
	v = view(b.IP.String())
	require.Len(t, v.Routes, 1)
	require.Equal(t, "cust2", v.Routes[0].Interface)
	require.NoError(t, u.Router.IP("link", "set", "cust1", "down"))
	eventually(t, 5*time.Second, "one waits for its interface", func() (bool, error) {
		return view().Counts[route.Waiting] == 1, nil
	})
	out, err := usher("routes", "show")
	require.NoError(t, err)
	require.Regexp(t, a.IP.String()+" +cust1 +table 254 metric 0 +waiting +lease ends in", out)
	require.NotContains(t, out, b.IP.String(), "what is in order is not listed")
	require.NoError(t, u.Router.Sysctl("net.ipv4.conf.cust2.proxy_arp", "0"))
	require.NoError(t, u.Router.IP("link", "set", "cust1", "up"))
	u.waitRoute(t, a, "cust1")
	eventually(t, 5*time.Second, "the finding is shown", func() (bool, error) {
		out, err := usher("routes", "show", "--all")
		return err == nil && strings.Contains(out, "cust2: subscribers cannot reach others of their own subnet") && strings.Contains(out, "installed"), nil
	})

	_, err = usher("routes", "clear", "--yes")
	require.ErrorContains(t, err, "a running agent keeps these routes")
	u.waitRoute(t, a, "cust1")
	out, err = usher("routes", "clear", "--yes", "--protocol", "206")
	require.NoError(t, err)
	require.Contains(t, out, "removed: 0 routes of protocol 206")

	// The agent is gone: its routes stay, are shown, and go when an operator says so.
	require.NoError(t, u.Agent.Stop(5*time.Second))
	pa.Kill()
	require.NoError(t, u.Router.IP("route", "add", "192.0.2.98/32", "dev", "cust1", "proto", "207"))
	v = view()
	require.False(t, v.Agent || v.Enabled)
	require.Len(t, v.Routes, 3)
	out, err = usher("routes", "show")
	require.NoError(t, err)
	require.Contains(t, out, "none runs; these are the kernel's 3 routes of protocol 207")
	_, err = usher("routes", "clear")
	require.ErrorContains(t, err, "say --yes")
	_, err = u.Router.Output(t.Context(), "setpriv", "--reuid", "65534", "--clear-groups", u.Program, "routes", "clear", "--yes", "--protocol", "207", "--socket", "/nonexistent")
	require.Error(t, err) // nobody but root, wherever it fails
	u.waitRoute(t, a, "cust1")
	out, err = usher("routes", "clear", "--yes")
	require.NoError(t, err)
	require.Contains(t, out, "removed: 3 routes of protocol 207")
	u.waitRoute(t, a, "")
	out, err = u.Router.Output(t.Context(), "ip", "-4", "route", "show", "192.0.2.99")
	require.NoError(t, err)
	require.Contains(t, out, "proto static", "others stay")

	// An agent that keeps none says so, and the kernel's are shown.
	require.NoError(t, u.Router.IP("route", "add", "192.0.2.98/32", "dev", "cust1", "proto", "207"))
	config, err := os.ReadFile(u.ConfigPath())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(u.ConfigPath(), []byte(strings.Replace(string(config), "enabled: true", "enabled: false", 1)), 0o600))
	require.NoError(t, u.StartAgent(t.Context()))
	v = view()
	require.True(t, v.Agent && !v.Enabled)
	require.Len(t, v.Routes, 1)
	out, err = usher("routes", "clear", "--yes", "--output", "json")
	require.NoError(t, err)
	require.JSONEq(t, `{"protocol": 207, "removed": 1}`, out)
}

func TestRoutesCommandErrors(t *testing.T) {
	nowhere := []string{"--config", "/nonexistent/usher.yaml", "--socket", "/nonexistent/usher.sock"}
	code, _, stderr := runCLI(t, append([]string{"routes", "show", "nobody"}, nowhere...)...)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, `"nobody": want an IPv4 address`)
	code, _, stderr = runCLI(t, append([]string{"routes", "clear", "--yes"}, nowhere...)...)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "or give --protocol")
}
