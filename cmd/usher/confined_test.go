package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
	"github.com/usher-agent/usher/userside/emulator"
)

// unit returns the words that a key of the packaged unit is set to, line by line.
func unit(t *testing.T, key string) [][]string {
	t.Helper()
	data, err := os.ReadFile("../../systemd/usher.service")
	require.NoError(t, err)
	var out [][]string
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			out = append(out, strings.Fields(v))
		}
	}
	require.NotEmpty(t, out, key)
	return out
}

// capabilities are those of the unit, as setpriv and capabilities(7) name them.
func capabilities(t *testing.T) []string {
	t.Helper()
	ambient, bounding := unit(t, "AmbientCapabilities"), unit(t, "CapabilityBoundingSet")
	require.Len(t, ambient, 1)
	require.Equal(t, ambient, bounding)
	return ambient[0]
}

// systemCalls returns the names of the system calls that the unit allows.
func systemCalls(t *testing.T) []string {
	t.Helper()
	members := map[string][]string{}
	group := func(name string) []string {
		if m, ok := members[name]; ok {
			return m
		}
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "syscall-filter", "--no-pager", name).Output()
		require.NoError(t, err)
		for line := range strings.Lines(string(out)) {
			if line = strings.TrimSpace(line); line != "" && line != name && !strings.HasPrefix(line, "#") {
				members[name] = append(members[name], line)
			}
		}
		return members[name]
	}
	allowed := map[string]bool{}
	var set func(name string, on bool)
	set = func(name string, on bool) {
		if !strings.HasPrefix(name, "@") {
			allowed[name] = on
			return
		}
		for _, m := range group(name) {
			set(m, on)
		}
	}
	for _, line := range unit(t, "SystemCallFilter") {
		first, off := strings.CutPrefix(line[0], "~")
		for _, name := range append([]string{first}, line[1:]...) {
			set(name, !off)
		}
	}
	var names []string
	for name, on := range allowed {
		if on {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// confinedUser is nobody of this machine.
const confinedUser = 61999

// confine has the agents of a world run as the unit runs them: as an unprivileged
// user with the capabilities named, the unit's system calls and address families,
// a file system that is read-only except for the state, a /proc that hides
// other users' processes, and the API key as a credential.
func (w *world) confine(t *testing.T, caps []string) {
	t.Helper()
	require.NoError(t, os.Chmod(filepath.Dir(w.Dir), 0o711)) // the agent's user must get to its state
	require.NoError(t, os.Chmod(w.Dir, 0o755))
	require.NoError(t, os.Chmod(w.ConfigPath(), 0o644))
	require.NoError(t, os.Chown(w.Dir, 0, confinedUser))
	state, run, cred := filepath.Join(w.Dir, "state"), filepath.Join(w.Dir, "run"), filepath.Join(w.Dir, "credentials")
	for dir, mode := range map[string]os.FileMode{state: 0o750, run: 0o755, cred: 0o500} {
		require.NoError(t, os.MkdirAll(dir, mode))
		require.NoError(t, os.Chown(dir, confinedUser, confinedUser))
	}
	key := filepath.Join(cred, "userside-key")
	require.NoError(t, os.WriteFile(key, []byte(miniature.Key+"\n"), 0o400))
	require.NoError(t, os.Chown(key, confinedUser, confinedUser))
	config, err := os.ReadFile(w.ConfigPath())
	require.NoError(t, err)
	moved := strings.Replace(string(config), w.Socket(), filepath.Join(run, "usher.sock"), 1)
	require.NoError(t, os.WriteFile(w.ConfigPath(), []byte(moved), 0o644))
	w.Client.Socket = filepath.Join(run, "usher.sock")

	program := filepath.Join(w.Dir, "usher")
	data, err := os.ReadFile(w.Program)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, data, 0o755))
	script := fmt.Sprintf(`#!/bin/sh
# In a mount namespace of its own, which "ip netns exec" has made.
set -e
mount --make-rprivate /
mount -t proc -o hidepid=invisible proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --bind %[1]s %[1]s
mount --bind %[2]s %[2]s
for at in $(awk '$5 == "/" || $5 == "/tmp" || $5 == "/var" { print $5 }' /proc/self/mountinfo); do mount -o remount,bind,ro "$at"; done
if [ -w / ] || [ -w %[7]s ]; then echo "the file system can be written to"; exit 1; fi
exec setpriv --reuid %[3]d --regid %[3]d --clear-groups --no-new-privs --bounding-set=%[4]s --inh-caps=%[4]s --ambient-caps=%[4]s %[5]s %[6]s "$@"
`, state, run, confinedUser, setprivCaps(caps), w.confiner(t), program, w.Dir)
	w.Program = filepath.Join(w.Dir, "confined.sh")
	require.NoError(t, os.WriteFile(w.Program, []byte(script), 0o755))
	w.AgentEnv = append(w.AgentEnv, "CREDENTIALS_DIRECTORY="+cred)
}

func setprivCaps(caps []string) string {
	s := "-all"
	for _, c := range caps {
		s += ",+" + strings.ToLower(strings.TrimPrefix(c, "CAP_"))
	}
	return s
}

// confiner builds the program that sets the system call filter.
func (w *world) confiner(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("#ifdef CALLS\n")
	for _, name := range systemCalls(t) {
		fmt.Fprintf(&b, "#ifdef __NR_%[1]s\nALLOW(__NR_%[1]s)\n#endif\n", name)
	}
	b.WriteString("#endif\n#ifdef FAMILIES\n")
	for _, family := range unit(t, "RestrictAddressFamilies")[0] {
		fmt.Fprintf(&b, "FAMILY(%s)\n", family)
	}
	b.WriteString("#endif\n")
	require.NoError(t, os.WriteFile(filepath.Join(w.Dir, "calls.h"), []byte(b.String()), 0o644))
	out := filepath.Join(w.Dir, "confine")
	text, err := exec.CommandContext(t.Context(), "gcc", "-Wall", "-Werror", "-I", w.Dir, "-o", out, "testdata/confined/confine.c").CombinedOutput()
	require.NoError(t, err, "%s", text)
	return out
}

// processStatus reads a line of /proc/PID/status of the running agent.
func (w *world) processStatus(t *testing.T, key string) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.Agent.PID())) // every step of its start was an exec
	require.NoError(t, err)
	m := regexp.MustCompile(`(?m)^` + key + `:\s*(.*)$`).FindSubmatch(data)
	require.NotNil(t, m, key)
	return string(m[1])
}

// The agent with everything switched on does its whole work with what the packaged
// unit leaves to it, and with less it says what is missing.
func TestKernelLeastPrivilege(t *testing.T) {
	t.Parallel()
	labtest.Need(t, "setpriv", "gcc", "systemd-analyze", "curl", "conntrack", "mount", "awk", "ss")
	u := startLeastPrivilege(t)
	caps := capabilities(t)
	require.Len(t, caps, 3)
	open := u.world.Program

	for _, tt := range []struct{ without, says string }{
		{"CAP_NET_BIND_SERVICE", "no permission for udp port 67: run as root or with CAP_NET_BIND_SERVICE"},
		{"CAP_NET_RAW", "open packet socket: run as root or with CAP_NET_RAW"},
		{"CAP_NET_ADMIN", "it needs CAP_NET_ADMIN"},
	} {
		t.Run("without "+tt.without, func(t *testing.T) {
			u.world.Program = open
			u.confine(t, slices.DeleteFunc(slices.Clone(caps), func(c string) bool { return c == tt.without }))
			err := u.StartAgent(t.Context())
			require.Error(t, err)
			require.Contains(t, u.Agent.Log(), tt.says)
		})
	}
	u.world.Program = open
	u.confine(t, caps)
	t.Run("who has port 67 already is told as far as it can be seen", func(t *testing.T) {
		other, err := u.Router.ListenPacket("0.0.0.0:67")
		require.NoError(t, err)
		defer other.Close()
		require.Error(t, u.StartAgent(t.Context()))
		require.Contains(t, u.Agent.Log(), "in use by a process of user root (0) that may not be looked at from here at 0.0.0.0:67")
	})
	require.NoError(t, u.StartAgent(t.Context()))
	require.Equal(t, fmt.Sprintf("%[1]d\t%[1]d\t%[1]d\t%[1]d", confinedUser), u.processStatus(t, "Uid"))
	const three = "0000000000003400" // NET_BIND_SERVICE 10, NET_ADMIN 12, NET_RAW 13
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		require.Equal(t, three, u.processStatus(t, set), set)
	}
	require.Equal(t, "2", u.processStatus(t, "Seccomp"))
	require.Equal(t, "1", u.processStatus(t, "NoNewPrivs"))

	relayed, direct, static := u.Homes[0], u.subs[0], u.subs[1]
	t.Run("DHCP by relay, directly and to a guest", func(t *testing.T) {
		require.NoError(t, u.Lease(t.Context(), relayed))
		u.bound(t, direct)
		require.True(t, between(boundTo(t, u.mustClient(t, u.guest), 1), "192.0.2.140", "192.0.2.141"))
		pools, err := u.Client.Pools(t.Context(), "guests")
		require.NoError(t, err)
		require.Positive(t, pools.Pools[0].Probes, "ARP by a packet socket")
		out, err := u.Router.Output(t.Context(), "ss", "-Hlunm", "sport", "=", "67")
		require.NoError(t, err)
		rmem, err := os.ReadFile("/proc/sys/net/core/rmem_max")
		require.NoError(t, err)
		found := regexp.MustCompile(`rb(\d+)`).FindAllStringSubmatch(out, -1)
		require.Len(t, found, 4, "one receives, three send to next hops that may not be there: %s", out)
		for _, m := range found {
			require.NotEqual(t, strings.TrimSpace(string(rmem)), m[1])
			require.Greater(t, len(m[1]), 6, "the receive buffer is beyond rmem_max: %s", out)
		}
	})
	t.Run("a route and its return after a stranger has deleted it", func(t *testing.T) {
		u.waitRoute(t, direct, direct.Port)
		u.pings(t, direct.Host, miniature.InternetIP)
		require.NoError(t, u.Router.IP("route", "del", direct.IP.String()+"/32"))
		u.waitRoute(t, direct, direct.Port)
		require.Empty(t, u.status(t).Routes.Findings, "/proc/sys can be read")
	})
	t.Run("the source guard", func(t *testing.T) {
		require.NoError(t, direct.Host.IP("addr", "add", "192.0.2.99/32", "dev", "eth0"))
		require.False(t, ping(t, direct.Host, "192.0.2.99", miniature.InternetIP))
		require.True(t, ping(t, direct.Host, direct.IP.String(), miniature.InternetIP))
	})
	t.Run("a neighbour is reported", func(t *testing.T) {
		require.NoError(t, u.Router.IP("route", "add", static.IP.String()+"/32", "dev", static.Port))
		require.NoError(t, static.Host.IP("addr", "add", static.IP.String()+"/25", "dev", "eth0"))
		require.NoError(t, static.Host.IP("route", "add", "default", "via", "192.0.2.1"))
		require.NoError(t, static.Host.IP("link", "set", "dev", "eth0", "address", "00:00:5e:00:53:aa"))
		u.pings(t, u.Router, static.IP.String())
		eventually(t, 15*time.Second, "the ERP has the MAC", func() (bool, error) {
			c, _ := u.ERP.Customer(static.ID)
			return c.Addresses[0].MAC == emulator.MAC{0, 0, 0x5e, 0, 0x53, 0xaa}, nil
		})
	})
	t.Run("a block, its flow and the portal", func(t *testing.T) {
		live, err := miniature.StartFlow(relayed.Host)
		require.NoError(t, err)
		defer live.Close()
		require.NoError(t, miniature.Beating(t.Context(), live))
		_, err = u.Client.SetState(t.Context(), provision.SubscriberID(relayed.ID), provision.StatePause)
		require.NoError(t, err)
		_, err = live.WaitEnd(t.Context(), 5*time.Second)
		require.NoError(t, err)
		eventually(t, 5*time.Second, "its entries of conntrack are gone", func() (bool, error) {
			out, err := u.Router.Output(t.Context(), "conntrack", "-L", "-s", relayed.IP.String(), "-p", "tcp", "--dport", "7007")
			return !strings.Contains(out, "dport=7007"), err
		})
		// The portal listens on an address that comes after the start, as keepalived's do.
		require.NoError(t, u.Router.IP("addr", "add", "10.0.0.9/32", "dev", "lo"))
		a := curl(t, relayed.Host, "http://any.example.org/", siteAny)
		require.NoError(t, a.err)
		require.Equal(t, "511", a.code)
		st := u.status(t)
		require.Empty(t, st.ACL.LastError)
		require.NotEmpty(t, st.ACL.Have)
	})
	t.Run("a foreign write is heard of and undone", func(t *testing.T) {
		u.nft(t, "flush", "set", "inet", "usher", "paused")
		eventually(t, 5*time.Second, "the set is as before", func() (bool, error) {
			return strings.Contains(u.nft(t, "list", "set", "inet", "usher", "paused"), relayed.IP.String()), nil
		})
	})
	t.Run("reload, kill and start again", func(t *testing.T) {
		require.NoError(t, u.Agent.Signal(syscall.SIGHUP))
		logged(t, u.Agent, "configuration reloaded", 1)
		u.Agent.Kill()
		require.NoError(t, u.StartAgent(t.Context()))
		eventually(t, 10*time.Second, "the routes are adopted", func() (bool, error) {
			r := u.status(t).Routes
			return r.Adopted >= 1 && r.Removed == 0, nil
		})
	})
	require.NoError(t, u.Agent.Stop(5*time.Second))
	for _, p := range u.Lab.Processes() {
		if p.Host != "router" || p.Name != "confined.sh" || strings.HasPrefix(p.Log(), "usher: ") {
			continue
		}
		require.NotRegexp(t, `not permitted|permission denied|read-only|level=ERROR|"level":"ERROR"`, p.Log())
	}
	for _, name := range []string{"snapshot", "state.db", "garden.json", "audit.jsonl"} {
		info, err := os.Stat(filepath.Join(u.Dir, "state", name))
		require.NoError(t, err)
		require.Equal(t, uint32(confinedUser), info.Sys().(*syscall.Stat_t).Uid, name)
	}
}

// leastPrivilege is an unnumbered world with a wire of guests besides.
type leastPrivilege struct {
	*unnumbered
	guest miniature.Home
}

func (u *leastPrivilege) mustClient(t *testing.T, h miniature.Home) *lab.Process {
	t.Helper()
	p, err := u.DHCPClient(h)
	require.NoError(t, err)
	return p
}

func startLeastPrivilege(t *testing.T) *leastPrivilege {
	t.Helper()
	w := startWorld(t, miniature.Options{
		Homes: 1, Interfaces: []string{`"cust*"`, "lan"},
		Subnets: `    - {prefix: 192.0.2.0/25, gateway: 192.0.2.1, lease_time: 10m}
    - {prefix: 192.0.2.128/25, gateway: 192.0.2.129, lease_time: 10m}
`,
		DHCP: `  unknown_clients: guest
  pools: [{name: guests, range: 192.0.2.140-192.0.2.141, lease_time: 2m}]
`,
		Extra: `acl:
  source_guard: {vlan: ["cust1"]}
  pause: {garden: [` + payName + `, ` + siteByAddr + `]}
  resolvers: [` + siteAny + `]
portal: {listen: "10.0.0.9:8080"}
routes: {enabled: true, interfaces: ["cust*"]}
neighbours: {enabled: true, interfaces: ["cust*"], min_time: 0s}
`,
	})
	w.startSites(t)
	require.NoError(t, w.Router.IP("addr", "add", "192.0.2.1/32", "dev", "lo"))
	u := &unnumbered{world: w}
	for i := range 2 {
		host, err := w.Lab.Host(fmt.Sprintf("sub%d", i+1))
		require.NoError(t, err)
		h := miniature.Home{Host: host, Port: fmt.Sprintf("cust%d", i+1), IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(17 + i)}),
			MAC: fmt.Sprintf("00:00:5e:00:53:%02x", 0x20+i)}
		u.plug(t, h)
		h.ID, err = w.ERP.AddCustomer(emulator.Customer{Login: host.Name, FullName: host.Name, State: emulator.StateActive,
			Addresses: []emulator.Address{{IP: h.IP, MAC: emulator.MAC{0, 0, 0x5e, 0, 0x53, byte(0x20 + i)}}}})
		require.NoError(t, err)
		u.subs = append(u.subs, h)
	}
	host, err := w.Lab.Host("guest")
	require.NoError(t, err)
	require.NoError(t, w.Lab.Wire(w.Router, "lan", host, "eth0"))
	require.NoError(t, w.Router.IP("addr", "add", "192.0.2.129/25", "dev", "lan"))
	return &leastPrivilege{u, miniature.Home{Host: host}}
}
