package link_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/link"
	"github.com/usher-agent/usher/provision/link/lab"
)

// newLab skips where a kernel test cannot run; where they are required it fails.
func newLab(t testing.TB) *lab.Lab {
	t.Helper()
	if missing := lab.Missing("nft", "conntrack"); len(missing) > 0 {
		if os.Getenv("USHER_REQUIRE_KERNEL") == "1" {
			t.Fatalf("the kernel tests are required, but this machine lacks %s", strings.Join(missing, ", "))
		}
		t.Skipf("needs %s", strings.Join(missing, ", "))
	}
	l, err := lab.New("link", t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.Close()) })
	return l
}

func openFlows(t testing.TB, h *lab.Host) *link.Flows {
	t.Helper()
	ns, err := os.Open(filepath.Join("/run/netns", h.Namespace))
	require.NoError(t, err)
	f, err := link.OpenFlows(link.Options{NetNS: int(ns.Fd())})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, f.Close())
		_ = ns.Close()
	})
	return f
}

// insert makes an entry of the connection table.
func insert(t testing.TB, h *lab.Host, proto string, port int, src, dst, replySrc, replyDst string) {
	t.Helper()
	args := []string{"-I", "-p", proto, "-s", src, "-d", dst, "-r", replySrc, "-q", replyDst,
		"--sport", fmt.Sprint(port), "--dport", "443", "--reply-port-src", "443", "--reply-port-dst", fmt.Sprint(port), "-t", "600"}
	if proto == "tcp" {
		args = append(args, "--state", "ESTABLISHED")
	}
	_, err := h.Output(t.Context(), "conntrack", args...)
	require.NoError(t, err)
}

// flows returns "source > destination" of every entry as the conntrack command sees it.
func flows(t testing.TB, h *lab.Host) []string {
	t.Helper()
	out, err := h.Output(t.Context(), "conntrack", "-L")
	require.NoError(t, err)
	var list []string
	for _, m := range regexp.MustCompile(`(?m)^\w+ .*?src=(\S+) dst=(\S+)`).FindAllStringSubmatch(out, -1) {
		list = append(list, m[1]+" > "+m[2])
	}
	sort.Strings(list)
	return list
}

// hosts returns addresses as prefixes.
func hosts(addrs ...netip.Addr) (out []netip.Prefix) {
	for _, a := range addrs {
		out = append(out, netip.PrefixFrom(a, 32))
	}
	return out
}

func TestKernelForgetDeletesTheFlowsOfTheAddresses(t *testing.T) {
	l := newLab(t)
	h, err := l.Host("router")
	require.NoError(t, err)
	f := openFlows(t, h)

	n, err := f.Forget(t.Context(), hosts(netip.MustParseAddr("100.64.0.1")))
	require.NoError(t, err, "an empty table")
	require.Zero(t, n)

	const server, outside = "192.0.2.1", "203.0.113.1"
	insert(t, h, "tcp", 1001, "100.64.0.1", server, server, "100.64.0.1")
	insert(t, h, "udp", 1002, "100.64.0.1", server, server, "100.64.0.1")
	insert(t, h, "tcp", 1003, server, "100.64.0.1", "100.64.0.1", server)
	insert(t, h, "tcp", 1004, "100.64.0.2", server, server, outside) // source translated
	insert(t, h, "tcp", 1005, "192.0.2.9", outside, "100.64.0.2", "192.0.2.9")
	insert(t, h, "tcp", 1006, "100.64.0.3", server, server, "100.64.0.3")
	insert(t, h, "tcp", 1007, "100.64.0.11", server, server, "100.64.0.11")
	insert(t, h, "udp", 1008, "192.0.2.7", server, server, "192.0.2.7")
	require.Len(t, flows(t, h), 8)

	n, err = f.Forget(t.Context(), hosts(
		netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2"), netip.MustParseAddr("100.64.9.9")))
	require.NoError(t, err)
	require.Equal(t, 5, n)
	require.Equal(t, []string{"100.64.0.11 > 192.0.2.1", "100.64.0.3 > 192.0.2.1", "192.0.2.7 > 192.0.2.1"}, flows(t, h))

	n, err = f.Forget(t.Context(), hosts(netip.MustParseAddr("100.64.0.1")))
	require.NoError(t, err)
	require.Zero(t, n)
	require.Len(t, flows(t, h), 3)
}

// Of a subnet the flows of all its addresses end, and no others.
func TestKernelForgetDeletesTheFlowsOfASubnet(t *testing.T) {
	l := newLab(t)
	h, err := l.Host("router")
	require.NoError(t, err)
	const server = "192.0.2.1"
	for i, a := range []string{"100.64.0.7", "100.64.0.8", "100.64.0.15", "100.64.0.16", "100.64.9.9"} {
		insert(t, h, "tcp", 1001+i, a, server, server, a)
	}
	insert(t, h, "udp", 1010, server, "100.64.0.9", "100.64.0.9", server)
	n, err := openFlows(t, h).Forget(t.Context(), append([]netip.Prefix{netip.MustParsePrefix("100.64.0.8/29")}, hosts(netip.MustParseAddr("100.64.9.9"))...))
	require.NoError(t, err)
	require.Equal(t, 4, n)
	require.Equal(t, []string{"100.64.0.16 > 192.0.2.1", "100.64.0.7 > 192.0.2.1"}, flows(t, h))
}

// fill makes entries for some subscribers, so many for each. The conntrack
// command takes a file of commands, so one process makes all.
func fill(t testing.TB, h *lab.Host, subscribers, each int) {
	t.Helper()
	var script strings.Builder
	for i := range subscribers {
		addr := fmt.Sprintf("100.64.%d.%d", i/200, i%200)
		for j := range each {
			fmt.Fprintf(&script, "-I -p udp -s %s -d 192.0.2.1 -r 192.0.2.1 -q %s --sport %d --dport 53 --reply-port-src 53 --reply-port-dst %d -t 600\n",
				addr, addr, 1000+j, 1000+j)
		}
	}
	path := filepath.Join(t.TempDir(), "flows")
	require.NoError(t, os.WriteFile(path, []byte(script.String()), 0o644))
	_, err := h.Output(t.Context(), "conntrack", "--load-file", path)
	require.NoError(t, err)
}

// Thousands of flows and hundreds of addresses are one pass over the table.
func TestKernelForgetManyInOnePass(t *testing.T) {
	l := newLab(t)
	h, err := l.Host("router")
	require.NoError(t, err)
	const subscribers, each = 500, 10
	fill(t, h, subscribers, each)

	var addrs []netip.Addr
	for i := range subscribers - 1 { // all but the last
		addrs = append(addrs, netip.AddrFrom4([4]byte{100, 64, byte(i / 200), byte(i % 200)}))
	}
	f := openFlows(t, h)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = f.Forget(ended, hosts(addrs...))
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, flows(t, h), subscribers*each)

	begin := time.Now()
	n, err := f.Forget(t.Context(), hosts(addrs...))
	require.NoError(t, err)
	require.Equal(t, (subscribers-1)*each, n)
	t.Logf("%d of %d flows forgotten in %s", n, subscribers*each, time.Since(begin))
	require.Len(t, flows(t, h), each)
}

// A real connection through a router with a stateful firewall that lets nothing
// in but replies: it stops when its entry is gone, another one goes on.
func TestKernelForgetEndsWhatTheFirewallOnlyAcceptsAsEstablished(t *testing.T) {
	l := newLab(t)
	router, err := l.Host("router")
	require.NoError(t, err)
	server, err := l.Host("internet")
	require.NoError(t, err)
	require.NoError(t, l.Wire(router, "wan0", server, "eth0"))
	require.NoError(t, router.IP("addr", "add", "192.0.2.254/24", "dev", "wan0"))
	require.NoError(t, server.IP("addr", "add", "192.0.2.1/24", "dev", "eth0"))
	require.NoError(t, server.IP("route", "add", "100.64.0.0/10", "via", "192.0.2.254"))
	require.NoError(t, router.Sysctl("net.ipv4.ip_forward", "1"))
	// Segments in the middle of a connection are not taken for its beginning.
	_, err = router.Output(t.Context(), "nft", `table inet filter {
		chain forward {
			type filter hook forward priority filter; policy drop;
			ct state established accept
			ct state new tcp flags & (syn|ack) == syn accept
		}
	}`)
	require.NoError(t, err)
	ln, err := server.Listen("192.0.2.1:7000")
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	go echo(ln, done)

	conns := make([]net.Conn, 2)
	for i := range conns {
		addr := fmt.Sprintf("100.64.%d.1", i)
		h, err := l.Host(fmt.Sprintf("client%d", i))
		require.NoError(t, err)
		require.NoError(t, l.Wire(router, fmt.Sprintf("down%d", i), h, "eth0"))
		require.NoError(t, router.IP("addr", "add", fmt.Sprintf("100.64.%d.254/24", i), "dev", fmt.Sprintf("down%d", i)))
		require.NoError(t, h.IP("addr", "add", addr+"/24", "dev", "eth0"))
		require.NoError(t, h.IP("route", "add", "default", "via", fmt.Sprintf("100.64.%d.254", i)))
		conns[i], err = h.Dial("192.0.2.1:7000", 2*time.Second)
		require.NoError(t, err)
		defer conns[i].Close()
		require.NoError(t, exchange(conns[i], 2*time.Second))
	}

	n, err := openFlows(t, router).Forget(t.Context(), hosts(netip.MustParseAddr("100.64.0.1")))
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, []string{"100.64.1.1 > 192.0.2.1"}, flows(t, router))
	require.NoError(t, exchange(conns[1], 2*time.Second))
	require.ErrorIs(t, exchange(conns[0], 300*time.Millisecond), os.ErrDeadlineExceeded)
	require.NoError(t, exchange(conns[1], 2*time.Second))
}

// echo answers each byte until the listener closes, then ends its connections.
func echo(ln net.Listener, done chan<- struct{}) {
	defer close(done)
	var conns []net.Conn
	ended := make(chan struct{})
	for {
		c, err := ln.Accept()
		if err != nil {
			break
		}
		conns = append(conns, c)
		go func() {
			_, _ = io.Copy(c, c)
			ended <- struct{}{}
		}()
	}
	for _, c := range conns {
		_ = c.Close()
	}
	for range conns {
		<-ended
	}
}

// exchange sends a byte and waits for its echo.
func exchange(c net.Conn, within time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// What the kernel filters is what one reading of everything finds: with and
// without address translation, opened from either side.
func TestKernelFilteredReadingFindsTheSame(t *testing.T) {
	l := newLab(t)
	h, err := l.Host("router")
	require.NoError(t, err)
	const server, outside = "192.0.2.1", "203.0.113.1"
	fillIn := func() {
		insert(t, h, "tcp", 1001, "100.64.0.1", server, server, "100.64.0.1")
		insert(t, h, "udp", 1002, "100.64.0.1", server, server, outside)        // masqueraded
		insert(t, h, "tcp", 1003, server, "100.64.0.1", "100.64.0.1", server)   // from the internet
		insert(t, h, "udp", 1004, server, outside, "100.64.0.1", server)        // to a forwarded port
		insert(t, h, "udp", 1005, "192.0.2.9", server, server, "100.64.0.1")    // another one, masqueraded as the address
		insert(t, h, "tcp", 1006, server, "100.64.0.1", "192.0.2.9", server)    // the address forwards to another
		insert(t, h, "tcp", 1007, "100.64.0.2", server, server, "100.64.0.2")   // the second
		insert(t, h, "tcp", 1008, "100.64.0.11", server, server, "100.64.0.11") // nobody's
		insert(t, h, "udp", 1009, "100.64.1.0", server, server, "100.64.1.0")
	}
	one, two := []netip.Addr{netip.MustParseAddr("100.64.0.1")}, []netip.Addr{netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")}
	many := append(two[:2:2], netip.MustParseAddr("198.51.100.7")) // read as a whole
	for name, addrs := range map[string][]netip.Addr{"one": one, "two": two, "many": many} {
		t.Run(name, func(t *testing.T) {
			fillIn()
			f := openFlows(t, h)
			n, err := f.Forget(t.Context(), hosts(addrs...))
			require.NoError(t, err)
			want, left := 5, []string{"100.64.0.11 > 192.0.2.1", "100.64.1.0 > 192.0.2.1", "192.0.2.1 > 100.64.0.1", "192.0.2.9 > 192.0.2.1"}
			if name == "one" {
				want, left = 4, []string{"100.64.0.11 > 192.0.2.1", "100.64.0.2 > 192.0.2.1", "100.64.1.0 > 192.0.2.1", "192.0.2.1 > 100.64.0.1", "192.0.2.9 > 192.0.2.1"}
			}
			require.Equal(t, want, n)
			require.Equal(t, left, flows(t, h))
			n, err = f.Forget(t.Context(), hosts(addrs...))
			require.NoError(t, err)
			require.Zero(t, n)
			_, err = h.Output(t.Context(), "conntrack", "-F")
			require.NoError(t, err)
		})
	}
}

// The cost of one address among 50,000 flows: filtered by the kernel, and by one
// reading of everything, which three addresses need.
func BenchmarkKernelForget(b *testing.B) {
	l := newLab(b)
	h, err := l.Host("router")
	require.NoError(b, err)
	fill(b, h, 5000, 10)
	f := openFlows(b, h)
	nobody := []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("198.51.100.3")}
	for _, bb := range []struct {
		name  string
		addrs []netip.Addr
	}{{"filtered/addresses=1", nobody[:1]}, {"filtered/addresses=2", nobody[:2]}, {"whole/addresses=3", nobody}} {
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				n, err := f.Forget(b.Context(), hosts(bb.addrs...))
				require.NoError(b, err)
				require.Zero(b, n)
			}
		})
	}
}
