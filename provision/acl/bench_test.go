package acl_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/acl/ruleset"
	"github.com/usher-agent/usher/provision/link/lab"
)

// loaded gives a table with n stopped subscribers.
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

// What a router does with a packet of a subscriber who is not blocked, besides
// sending it on: a UDP datagram through the router to a socket that nobody
// reads. The time is that of the whole way, from the write on.
func BenchmarkKernelForwardedPacket(b *testing.B) {
	const n = 100_000
	self := netip.MustParseAddr("198.51.100.1")
	var pairs []access.DirectBinding
	for _, a := range subscribers(0, n) {
		pairs = append(pairs, access.DirectBinding{IP: a, MAC: provision.MAC{2}})
	}
	var macs []byte
	for i := range n {
		macs = append(macs, 2, 1, 0, byte(i>>16), byte(i>>8), byte(i))
	}
	tests := []struct {
		name   string
		table  bool
		policy ruleset.Policy
		want   access.ACL
	}{
		{name: "no table"},
		{name: "empty table", table: true},
		{name: "100,000 blocked", table: true, want: access.ACL{access.SetStopped: access.Addrs(subscribers(0, n/2)...), access.SetPaused: access.Addrs(subscribers(n/2, n/2)...)}},
		{name: "100,000 blocked, and their IPv6", table: true, policy: ruleset.Policy{IPv6: true, Egress: "wan0"}, want: access.ACL{ // the way back has the egress chain
			access.SetStopped: access.Addrs(subscribers(0, n/2)...), access.SetPaused: access.Addrs(subscribers(n/2, n/2)...),
			access.SetIPv6Direct: access.Interfaces("wan0"), access.SetPausedMAC: access.Keys(macs)}},
		{name: "and 100,000 bound sources", table: true, policy: ruleset.Policy{SourceGuard: true}, want: access.ACL{
			access.SetStopped: access.Addrs(subscribers(0, n/2)...), access.SetPaused: access.Addrs(subscribers(n/2, n/2)...),
			access.SetGuardedDirect: access.Interfaces("down0"), access.SetBoundDirect: access.DirectBindings(pairs...)}},
	}
	nets := access.ACL{}.Apply(append(stoppedNets(b, provision.OpAdd, 29, 0, n/2), stoppedNets(b, provision.OpAdd, 30, 200_000, n/2)...))
	tests = append(tests, struct {
		name   string
		table  bool
		policy ruleset.Policy
		want   access.ACL
	}{name: "100,000 blocked subnets of two lengths", table: true, want: nets})
	for _, tt := range tests {
		b.Run(tt.name, func(b *testing.B) {
			r := newRouter(b)
			host := func(name string) *lab.Host {
				h, err := r.lab.Host(name)
				require.NoError(b, err)
				return h
			}
			sub, internet := host("subscriber"), host("internet")
			require.NoError(b, r.lab.Wire(r.host, "down0", sub, "eth0"))
			require.NoError(b, r.lab.Wire(r.host, "wan0", internet, "eth0"))
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
			if tt.table {
				want := tt.want
				want[access.SetBoundDirect] += access.DirectBindings(access.DirectBinding{IP: self, MAC: provision.MAC{2, 0, 0, 0, 0, 1}})
				table := r.openWith(acl.Options{Policy: tt.policy})
				apply(b, table, access.Plan(want, observe(b, table)))
			}
			sink, err := internet.ListenPacket("192.0.2.1:4000")
			require.NoError(b, err)
			defer sink.Close()
			var c net.Conn
			require.NoError(b, sub.Do(func() (err error) {
				c, err = net.Dial("udp4", "192.0.2.1:4000")
				return err
			}))
			defer c.Close()
			payload := make([]byte, 22) // 64 bytes with all headers
			_, err = c.Write(payload)
			require.NoError(b, err)
			require.NoError(b, sink.SetReadDeadline(time.Now().Add(patience)))
			_, _, err = sink.ReadFrom(payload)
			require.NoError(b, err, "the way is not open")
			for b.Loop() {
				if _, err := c.Write(payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
