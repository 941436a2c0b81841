package acl_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/acl/ruleset"
	"github.com/usher-agent/usher/provision/link/lab"
)

// loaded returns a table with n stopped subscribers.
func loaded(b *testing.B, n int) *acl.Table {
	b.Helper()
	table := newRouter(b).open()
	observe(b, table)
	apply(b, table, add(access.SetStopped, subscribers(0, n)...))
	return table
}

// The same 100,000 addresses into an equal set of the same network namespace, by
// us and by the usual tools, whose start is part of what they cost. "heard" has
// an agent that listens to the kernel's events, as a running one does.
func BenchmarkKernelLoad100k(b *testing.B) {
	addrs := subscribers(0, 100_000)
	fill, empty := add(access.SetStopped, addrs...), remove(access.SetStopped, addrs...)
	ours := func(b *testing.B, table *acl.Table) {
		b.Helper()
		for b.Loop() {
			apply(b, table, fill)
			b.StopTimer()
			apply(b, table, empty)
			b.StartTimer()
		}
	}
	b.Run("usher", func(b *testing.B) { ours(b, loaded(b, 0)) })
	b.Run("usher, heard", func(b *testing.B) {
		table := loaded(b, 0)
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error)
		go func() { done <- table.Watch(ctx, func() {}) }()
		ours(b, table)
		cancel()
		require.NoError(b, <-done)
	})
	b.Run("nft -f", func(b *testing.B) {
		r := newRouter(b)
		r.nft("add table inet tool ; add set inet tool stopped { type ipv4_addr ; }")
		var text strings.Builder
		text.WriteString("add element inet tool stopped { ")
		for i, a := range addrs {
			if i > 0 {
				text.WriteString(", ")
			}
			text.WriteString(a.String())
		}
		text.WriteString(" }\n")
		path := filepath.Join(b.TempDir(), "load.nft")
		require.NoError(b, os.WriteFile(path, []byte(text.String()), 0o600))
		for b.Loop() {
			r.nft("-f", path)
			b.StopTimer()
			r.nft("flush set inet tool stopped")
			b.StartTimer()
		}
	})
	b.Run("ipset restore", func(b *testing.B) {
		if missing := lab.Missing("ipset"); len(missing) > 0 {
			b.Skipf("needs %s", strings.Join(missing, ", "))
		}
		r := newRouter(b)
		ipset := func(args ...string) {
			_, err := r.host.Output(b.Context(), "ipset", args...)
			require.NoError(b, err)
		}
		ipset("create", "stopped", "hash:ip", "maxelem", "200000")
		var text strings.Builder
		for _, a := range addrs {
			fmt.Fprintf(&text, "add stopped %s\n", a)
		}
		path := filepath.Join(b.TempDir(), "load.ipset")
		require.NoError(b, os.WriteFile(path, []byte(text.String()), 0o600))
		for b.Loop() {
			ipset("restore", "-file", path)
			b.StopTimer()
			ipset("flush", "stopped")
			b.StartTimer()
		}
	})
}

// One change among 100,000. The median is reported besides: a single one may
// meet the kernel as it enlarges its table.
func BenchmarkKernelOneMoreTo100k(b *testing.B) {
	table := loaded(b, 100_000)
	one, none := add(access.SetStopped, subscribers(200_000, 1)...), remove(access.SetStopped, subscribers(200_000, 1)...)
	var times []time.Duration
	for b.Loop() {
		began := time.Now()
		apply(b, table, one)
		times = append(times, time.Since(began))
		b.StopTimer()
		apply(b, table, none)
		b.StartTimer()
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds()), "median-ns")
}

func BenchmarkKernelThousandMoreTo100k(b *testing.B) {
	table := loaded(b, 100_000)
	some, none := add(access.SetStopped, subscribers(200_000, 1000)...), remove(access.SetStopped, subscribers(200_000, 1000)...)
	for b.Loop() {
		apply(b, table, some)
		b.StopTimer()
		apply(b, table, none)
		b.StartTimer()
	}
}

func BenchmarkKernelObserve100k(b *testing.B) {
	table := loaded(b, 100_000)
	for b.Loop() {
		require.Equal(b, 100_000, observe(b, table).Counts()[access.SetStopped])
	}
}

func BenchmarkKernelChanged(b *testing.B) {
	table := loaded(b, 100_000)
	observe(b, table)
	for b.Loop() {
		require.False(b, changed(b, table))
	}
}

// A way of a subscriber who is not blocked through a router to a socket that nobody reads.
type way struct {
	name    string
	conn    net.Conn
	packets []time.Duration // processor time of one, the mean of each burst
}

// forward builds a router with a subscriber and the internet, and has rules put the table there.
func forward(b *testing.B, name string, rules func(r *router)) *way {
	b.Helper()
	r := newRouterNamed(b, name)
	sub, internet := r.wire("down0", name+"-sub"), r.wire("wan0", name+"-net")
	require.NoError(b, sub.IP("link", "set", "eth0", "address", "02:00:00:00:00:01"))
	for _, step := range []struct {
		h    *lab.Host
		args []string
	}{
		{r.host, []string{"addr", "add", "198.51.100.254/24", "dev", "down0"}},
		{sub, []string{"addr", "add", "198.51.100.1/24", "dev", "eth0"}},
		{sub, []string{"route", "add", "default", "via", "198.51.100.254"}},
		{r.host, []string{"addr", "add", "192.0.2.254/24", "dev", "wan0"}},
		{internet, []string{"addr", "add", "192.0.2.1/24", "dev", "eth0"}},
		{internet, []string{"route", "add", "default", "via", "192.0.2.254"}},
	} {
		require.NoError(b, step.h.IP(step.args...))
	}
	require.NoError(b, r.host.Sysctl("net.ipv4.ip_forward", "1"))
	rules(r)
	sink, err := internet.ListenPacket("192.0.2.1:4000")
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, sink.Close()) })
	w := &way{name: name}
	require.NoError(b, sub.Do(func() (err error) {
		w.conn, err = net.Dial("udp4", "192.0.2.1:4000")
		return err
	}))
	b.Cleanup(func() { require.NoError(b, w.conn.Close()) })
	w.send(b, 1)
	require.NoError(b, sink.SetReadDeadline(time.Now().Add(patience)))
	_, _, err = sink.ReadFrom(make([]byte, 64))
	require.NoError(b, err, "%s: the way is not open", name)
	return w
}

// send writes n packets of 64 bytes with all headers, and returns the processor time of one. The kernel
// takes each through the router before the write returns.
func (w *way) send(b *testing.B, n int) time.Duration {
	b.Helper()
	payload := make([]byte, 22)
	began := threadTime(b)
	for range n {
		if _, err := w.conn.Write(payload); err != nil {
			b.Fatal(err)
		}
	}
	return (threadTime(b) - began) / time.Duration(n)
}

// threadTime returns the processor time of this thread.
func threadTime(b *testing.B) time.Duration {
	b.Helper()
	var t unix.Timespec
	require.NoError(b, unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t))
	return time.Duration(t.Nano())
}

// What tables cost a forwarded packet beside none and beside the least that blocks: a set and two rules.
// The ways take turns, in bursts of a few milliseconds and in an order of chance, so that what else the machine
// does falls on all of them; what counts is the median of each way's differences from the way
// without a table in the same round. -benchtime gives the rounds.
func BenchmarkKernelForwardedPacket(b *testing.B) {
	const n, burst = 100_000, 500
	self := netip.MustParseAddr("198.51.100.1")
	var pairs []access.DirectBinding
	for _, a := range subscribers(0, n) {
		pairs = append(pairs, access.DirectBinding{IP: a, MAC: provision.MAC{2}})
	}
	var macs []byte
	for i := range n {
		macs = append(macs, 2, 1, 0, byte(i>>16), byte(i>>8), byte(i))
	}
	blocked := access.ACL{access.SetStopped: access.Addrs(subscribers(0, n/2)...), access.SetPaused: access.Addrs(subscribers(n/2, n/2)...)}
	ours := func(policy ruleset.Policy, want access.ACL) func(r *router) {
		return func(r *router) {
			want[access.SetBoundDirect] += access.DirectBindings(access.DirectBinding{IP: self, MAC: provision.MAC{2, 0, 0, 0, 0, 1}})
			table := r.openWith(acl.Options{Policy: policy})
			apply(b, table, access.Plan(want, observe(b, table)))
		}
	}
	with := func(more access.ACL) access.ACL {
		sum := blocked
		for i, s := range more {
			sum[i] += s
		}
		return sum
	}
	plain := func(r *router) {
		r.nft("add table inet plain ; add set inet plain blocked { type ipv4_addr ; } ; " +
			"add chain inet plain forward { type filter hook forward priority 0 ; } ; " +
			"add rule inet plain forward ip saddr @blocked drop ; add rule inet plain forward ip daddr @blocked drop")
		var text strings.Builder
		text.WriteString("add element inet plain blocked { ")
		for _, a := range subscribers(0, n) {
			text.WriteString(a.String() + ", ")
		}
		text.WriteString("}\n")
		path := filepath.Join(b.TempDir(), "plain.nft")
		require.NoError(b, os.WriteFile(path, []byte(text.String()), 0o600))
		r.nft("-f", path)
	}
	ways := []*way{
		forward(b, "none", func(*router) {}),
		forward(b, "plain", plain),
		forward(b, "empty", ours(ruleset.Policy{}, access.ACL{})),
		forward(b, "blocked", ours(ruleset.Policy{}, blocked)),
		forward(b, "ipv6", ours(ruleset.Policy{IPv6: true, Egress: "wan0"}, with(access.ACL{ // the way back has the egress chain
			access.SetIPv6Direct: access.Interfaces("wan0"), access.SetPausedMAC: access.Keys(macs)}))),
		forward(b, "guard", ours(ruleset.Policy{SourceGuard: true}, with(access.ACL{
			access.SetGuardedDirect: access.Interfaces("down0"), access.SetBoundDirect: access.DirectBindings(pairs...)}))),
		forward(b, "subnets", ours(ruleset.Policy{}, // of two lengths
			access.ACL{}.Apply(append(stoppedNets(b, provision.OpAdd, 29, 0, n/2), stoppedNets(b, provision.OpAdd, 30, 200_000, n/2)...)))),
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for b.Loop() {
		for _, i := range rand.Perm(len(ways)) {
			w := ways[i]
			w.send(b, burst/10) // warms what the last way has pushed out
			w.packets = append(w.packets, w.send(b, burst))
		}
	}
	none := ways[0]
	for _, w := range ways {
		more := slices.Clone(w.packets)
		if w != none {
			for i := range more {
				more[i] -= none.packets[i]
			}
		}
		slices.Sort(more)
		b.ReportMetric(float64(more[len(more)/2].Nanoseconds()), w.name+"-ns")
	}
}
