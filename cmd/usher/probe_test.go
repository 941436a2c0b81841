package main

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/dhcpd/probe"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
)

// The command as an engineer types it, at a customer and on the switch.
func TestKernelProbe(t *testing.T) {
	t.Parallel()
	labtest.Need(t, "tcpdump")
	w := worldWithoutRelay(t, miniature.Options{Homes: 1, Subnets: "  leasequery: {from: [" + miniature.GatewayIP + "]}\n"})
	require.NoError(t, w.StartAgent(t.Context()))
	h := w.setMAC(t, 0, 0x11)
	run := func(where string, args ...string) (int, string) {
		t.Helper()
		host := map[string]func(string, ...string) (string, error){
			"customer": func(n string, a ...string) (string, error) { return h.Host.Output(t.Context(), n, a...) },
			"switch":   func(n string, a ...string) (string, error) { return w.Access.Output(t.Context(), n, a...) },
		}[where]
		out, err := host(w.Program, append([]string{"probe"}, args...)...)
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return exit.ExitCode(), out
		}
		require.NoError(t, err)
		return 0, out
	}
	pcap := filepath.Join(w.Dir, "probe.pcap")
	asRelay := []string{"--relay-from", miniature.GatewayIP, "--server", "10.0.0.1", "--mac", "00:00:5e:00:53:71"}
	with := func(message string, more ...string) []string {
		return append(append([]string{message}, asRelay...), more...)
	}

	code, out := run("switch", with("dora", "--circuit-id", "ge1", "--pcap", pcap)...)
	require.Zero(t, code, out)
	for _, want := range []string{
		"sent      " + miniature.GatewayIP + ":67 > 10.0.0.1:67  DISCOVER", "Agent Circuit ID Sub-option: \"ge1\"",
		"discover: offer of " + h.IP.String() + " from 10.0.0.1 after ", "selecting: ack of " + h.IP.String(), "ok: ack, as expected",
	} {
		require.Contains(t, out, want)
	}
	dump, err := w.Access.Output(t.Context(), "tcpdump", "-nvr", pcap)
	require.NoError(t, err)
	require.Contains(t, dump, "Circuit-ID SubOption 1, length 3: ge1")
	require.NotContains(t, dump, "bad udp cksum")

	for _, c := range []struct {
		name, where string
		args        []string
		code        int
		want        string
	}{
		{"a wrong address is NAKed", "switch", with("init-reboot", "--circuit-id", "ge1", "--requested", "198.51.100.99", "--expect", "nak"), 0, "init-reboot: nak from 10.0.0.1"},
		{"not as expected", "switch", with("init-reboot", "--circuit-id", "ge1", "--requested", "198.51.100.99"), 1, "not as expected: nak, expected ack"},
		{"forged option 82", "switch", with("discover", "--circuit-id", "ge1", "--option82", "0103676532", "--expect", "silence", "--timeout", "200ms"), 0, "ok: silence"},
		{"unknown port", "switch", with("discover", "--circuit-id", "ge9", "--timeout", "200ms", "--retries", "1", "--quiet"), 1, "discover: silence, sent 2 times"},
		{"untrusted relay", "switch", with("discover", "--giaddr", "192.0.2.66", "--circuit-id", "ge1", "--expect", "silence", "--timeout", "200ms"), 0, "giaddr 192.0.2.66"},
		{"renewal by record, past the relay", "switch", []string{"renewing", "--relay-from", miniature.GatewayIP + ":67", "--giaddr", miniature.GatewayIP, "--server", "10.0.0.1", "--mac", "00:00:5e:00:53:71", "--ciaddr", h.IP.String()}, 0, "renewing: ack of " + h.IP.String()},
		{"several times", "switch", with("dora", "--circuit-id", "ge1", "--count", "3", "--quiet"), 0, "ok: ack"},
		{"leasequery by address", "switch", with("leasequery", "--ip", h.IP.String()), 0, "leasequery: active of " + h.IP.String() + " from 10.0.0.1"},
		{"leasequery by MAC", "switch", with("leasequery"), 0, "Agent Circuit ID Sub-option: \"ge1\""},
		{"leasequery of nobody", "switch", with("leasequery", "--ip", "198.51.100.99", "--expect", "unassigned"), 0, "ok: unassigned"},
		{"leasequery of a stranger", "switch", with("leasequery", "--giaddr", "192.0.2.66", "--ip", h.IP.String(), "--expect", "silence", "--timeout", "200ms"), 0, "ok: silence"},
		{"release", "switch", with("release", "--ciaddr", h.IP.String(), "--server-id", "10.0.0.1", "--timeout", "200ms"), 0, "release: silence"},
		{"nobody relays", "customer", []string{"discover", "--interface", "eth0", "--timeout", "200ms"}, 1, "chaddr " + h.MAC},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out := run(c.where, c.args...)
			require.Equal(t, c.code, code, out)
			require.Contains(t, out, c.want)
		})
	}
	w.leaseState(t, h.IP, "released")

	require.NoError(t, w.StartRelay(t.Context()))
	code, out = run("customer", "dora", "--interface", "eth0", "--mac", "00:00:5e:00:53:72", "--client-id", "box", "--output", "json")
	require.Zero(t, code, out)
	var report struct {
		AsExpected bool `json:"as_expected"`
		Runs       []struct {
			Answer  probe.Answer
			Address netip.Addr
			Packets []json.RawMessage
		}
	}
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	require.True(t, report.AsExpected)
	require.Equal(t, probe.Acked, report.Runs[0].Answer)
	require.Equal(t, h.IP, report.Runs[0].Address, "the frame to a foreign MAC is seen")
	require.Len(t, report.Runs[0].Packets, 4)

	// By unicast from the address, as RENEWING is.
	require.NoError(t, h.Host.IP("addr", "add", h.IP.String()+"/24", "dev", "eth0"))
	require.NoError(t, h.Host.IP("route", "add", "default", "via", miniature.GatewayIP))
	code, out = run("customer", "renewing", "--interface", "eth0", "--ciaddr", h.IP.String(), "--server", "10.0.0.1", "--mac", "00:00:5e:00:53:72", "--quiet")
	require.Zero(t, code, out)
	require.Contains(t, out, "renewing: ack of "+h.IP.String()+" from 10.0.0.1")
	code, out = run("customer", "renewing", "--relay-from", h.IP.String()+":68", "--ciaddr", h.IP.String(), "--server", "10.0.0.1", "--mac", "00:00:5e:00:53:72", "--quiet")
	require.Zero(t, code, out)
}
