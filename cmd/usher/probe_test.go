package main

import (
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/probe"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
)

func TestProbeSaysWhatIsWrong(t *testing.T) {
	relay := []string{"--relay-from", "127.0.0.1", "--server", "127.0.0.1"}
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"no message", nil, "accepts 1 arg(s)"},
		{"unknown message", []string{"offer"}, `message "offer": no such kind`},
		{"nowhere", []string{"dora"}, "want --interface, or --relay-from with --server"},
		{"both", []string{"dora", "-i", "eth0", "--relay-from", "127.0.0.1"}, "want one of them"},
		{"no server", []string{"dora", "--relay-from", "127.0.0.1"}, "--relay-from needs --server"},
		{"unicast from nowhere", []string{"renewing", "-i", "lo", "--server", "127.0.0.1"}, "needs --ciaddr"},
		{"field missing", append([]string{"selecting"}, relay...), "selecting needs a requested address"},
		{"bad address", append([]string{"dora", "--giaddr", "x"}, relay...), "--giaddr: "},
		{"bad MAC", append([]string{"dora", "--mac", "x"}, relay...), "--mac: "},
		{"bad option 82", append([]string{"dora", "--option82", "0"}, relay...), "--option82: "},
		{"bad circuit-id", append([]string{"dora", "--circuit-id", "0x0"}, relay...), "--circuit-id: "},
		{"bad option", append([]string{"dora", "--option", "82"}, relay...), "want CODE=HEX"},
		{"bad parameter", append([]string{"dora", "--parameters", "0"}, relay...), "--parameters: 0"},
		{"bad expectation", append([]string{"dora", "--expect", "joy"}, relay...), "want offer, ack, nak, active, unassigned, unknown or silence"},
		{"leasequery about nothing", append([]string{"leasequery"}, relay...), "leasequery needs an address, a MAC or a client identifier"},
		{"leasequery by no relay", []string{"leasequery", "-i", "lo", "--ip", "192.0.2.7"}, "leasequery needs a giaddr"},
		{"count of nothing", append([]string{"dora", "--count", "0"}, relay...), "--count"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, stderr := runCLI(t, append([]string{"probe"}, c.args...)...)
			require.Equal(t, exitUsage, code, stderr)
			require.Contains(t, stderr, c.want)
		})
	}
	code, _, stderr := runCLI(t, "probe", "dora", "--interface", "no-such-if")
	require.Equal(t, exitFailure, code)
	require.Contains(t, stderr, "interface no-such-if")
}

// The command as an engineer types it, at a customer and on the switch.
func TestKernelProbe(t *testing.T) {
	labtest.Need(t, "tcpdump")
	w := startWorld(t, worldOptions{homes: 1, noRelay: true, subnets: "  leasequery: {from: [" + worldGateway + "]}\n"})
	require.NoError(t, w.startAgent(t.Context()))
	h := w.setMAC(t, 0, 0x11)
	run := func(where string, args ...string) (int, string) {
		t.Helper()
		host := map[string]func(string, ...string) (string, error){
			"customer": func(n string, a ...string) (string, error) { return h.host.Output(t.Context(), n, a...) },
			"switch":   func(n string, a ...string) (string, error) { return w.access.Output(t.Context(), n, a...) },
		}[where]
		out, err := host(w.program, append([]string{"probe"}, args...)...)
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return exit.ExitCode(), out
		}
		require.NoError(t, err)
		return 0, out
	}
	pcap := filepath.Join(w.dir, "probe.pcap")
	asRelay := []string{"--relay-from", worldGateway, "--server", "10.0.0.1", "--mac", "00:00:5e:00:53:71"}
	with := func(message string, more ...string) []string {
		return append(append([]string{message}, asRelay...), more...)
	}

	code, out := run("switch", with("dora", "--circuit-id", "ge1", "--pcap", pcap)...)
	require.Zero(t, code, out)
	for _, want := range []string{
		"sent      " + worldGateway + ":67 > 10.0.0.1:67  DISCOVER", "Agent Circuit ID Sub-option: \"ge1\"",
		"discover: offer of " + h.ip.String() + " from 10.0.0.1 after ", "selecting: ack of " + h.ip.String(), "ok: ack, as expected",
	} {
		require.Contains(t, out, want)
	}
	dump, err := w.access.Output(t.Context(), "tcpdump", "-nvr", pcap)
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
		{"renewal by record, past the relay", "switch", []string{"renewing", "--relay-from", worldGateway + ":67", "--giaddr", worldGateway, "--server", "10.0.0.1", "--mac", "00:00:5e:00:53:71", "--ciaddr", h.ip.String()}, 0, "renewing: ack of " + h.ip.String()},
		{"several times", "switch", with("dora", "--circuit-id", "ge1", "--count", "3", "--quiet"), 0, "ok: ack"},
		{"leasequery by address", "switch", with("leasequery", "--ip", h.ip.String()), 0, "leasequery: active of " + h.ip.String() + " from 10.0.0.1"},
		{"leasequery by MAC", "switch", with("leasequery"), 0, "Agent Circuit ID Sub-option: \"ge1\""},
		{"leasequery of nobody", "switch", with("leasequery", "--ip", "198.51.100.99", "--expect", "unassigned"), 0, "ok: unassigned"},
		{"leasequery of a stranger", "switch", with("leasequery", "--giaddr", "192.0.2.66", "--ip", h.ip.String(), "--expect", "silence", "--timeout", "200ms"), 0, "ok: silence"},
		{"release", "switch", with("release", "--ciaddr", h.ip.String(), "--server-id", "10.0.0.1", "--timeout", "200ms"), 0, "release: silence"},
		{"nobody relays", "customer", []string{"discover", "--interface", "eth0", "--timeout", "200ms"}, 1, "chaddr " + h.mac},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out := run(c.where, c.args...)
			require.Equal(t, c.code, code, out)
			require.Contains(t, out, c.want)
		})
	}
	w.leaseState(t, h.ip, "released")

	require.NoError(t, w.startRelay(t.Context()))
	code, out = run("customer", "dora", "--interface", "eth0", "--mac", "00:00:5e:00:53:72", "--client-id", "box", "--output", "json")
	require.Zero(t, code, out)
	var report probeReport
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	require.True(t, report.AsExpected)
	require.Equal(t, probe.Acked, report.Runs[0].Answer)
	require.Equal(t, h.ip, report.Runs[0].Address, "the frame to a foreign MAC is seen")
	require.Len(t, report.Runs[0].Packets, 4)

	// By unicast from the address, as RENEWING is.
	require.NoError(t, h.host.IP("addr", "add", h.ip.String()+"/24", "dev", "eth0"))
	require.NoError(t, h.host.IP("route", "add", "default", "via", worldGateway))
	code, out = run("customer", "renewing", "--interface", "eth0", "--ciaddr", h.ip.String(), "--server", "10.0.0.1", "--mac", "00:00:5e:00:53:72", "--quiet")
	require.Zero(t, code, out)
	require.Contains(t, out, "renewing: ack of "+h.ip.String()+" from 10.0.0.1")
	code, out = run("customer", "renewing", "--relay-from", h.ip.String()+":68", "--ciaddr", h.ip.String(), "--server", "10.0.0.1", "--mac", "00:00:5e:00:53:72", "--quiet")
	require.Zero(t, code, out)
}
