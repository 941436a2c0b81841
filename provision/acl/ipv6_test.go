package acl_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/acl/ruleset"
	"github.com/usher-agent/usher/provision/link/lab"
)

const (
	serverIPv6 = "2001:db8:ffff::1"
	routerIPv6 = "2001:db8:1::fffe" // on the subscribers' wire
)

// dual is a router with two subscribers on one wire, a third alone on an interface, and
// the internet, all of which have IPv6.
type dual struct {
	*router
	first, second, alone, internet *lab.Host
}

const (
	firstIPv6  = "2001:db8:1::1"
	secondIPv6 = "2001:db8:1::2"
	aloneIPv6  = "2001:db8:2::1"
)

func newDual(t *testing.T, rules string) *dual {
	t.Helper()
	n := &dual{router: newRouter(t)}
	quiet := func(h *lab.Host) { // no address is tried out, and each refusal is sent
		for _, key := range []string{"net.ipv6.conf.default.accept_dad", "net.ipv6.conf.all.accept_dad", "net.ipv6.icmp.ratelimit"} {
			require.NoError(t, h.Sysctl(key, "0"))
		}
	}
	quiet(n.host)
	join := func(name, dev, network, last string, wire bool) *lab.Host {
		h, err := n.lab.Host(name)
		require.NoError(t, err)
		quiet(h)
		require.NoError(t, n.lab.Wire(n.host, dev, h, "eth0"))
		if wire {
			require.NoError(t, n.host.IP("link", "set", dev, "master", "br0"))
		} else {
			require.NoError(t, n.host.IP("addr", "add", network+"fffe/64", "dev", dev, "nodad"))
		}
		require.NoError(t, h.IP("addr", "add", network+last+"/64", "dev", "eth0", "nodad"))
		require.NoError(t, h.IP("-6", "route", "add", "default", "via", network+"fffe"))
		for _, port := range []string{"443", "4000"} {
			echo6(t, h, net.JoinHostPort(network+last, port))
		}
		return h
	}
	require.NoError(t, n.host.IP("link", "add", "br0", "type", "bridge"))
	require.NoError(t, n.host.IP("link", "set", "br0", "up"))
	require.NoError(t, n.host.IP("addr", "add", routerIPv6+"/64", "dev", "br0", "nodad"))
	require.NoError(t, n.host.Sysctl("net.ipv6.conf.all.forwarding", "1"))
	n.first = join("first", "down0", "2001:db8:1::", "1", true)
	n.second = join("second", "down1", "2001:db8:1::", "2", true)
	n.alone = join("alone", "down2", "2001:db8:2::", "1", false)
	n.internet = join("internet", "wan0", "2001:db8:ffff::", "1", false)
	echo6(t, n.host, net.JoinHostPort(routerIPv6, "443"))
	if rules != "" {
		n.nft(rules)
	}
	return n
}

// echo6 answers what comes to a TCP and a UDP port.
func echo6(t *testing.T, h *lab.Host, address string) {
	(&world{isp: &isp{router: &router{t: t}}}).echo(h, address)
}

// mac returns that of a host.
func (n *dual) mac(h *lab.Host) provision.MAC {
	n.t.Helper()
	out, err := h.Output(n.t.Context(), "cat", "/sys/class/net/eth0/address")
	require.NoError(n.t, err)
	mac, err := provision.ParseMAC(strings.TrimSpace(out))
	require.NoError(n.t, err)
	return mac
}

// reach tries everything from one host to an address and names what came of it.
func reach(h *lab.Host, ip string, within time.Duration) string {
	var out [3]string
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := dial6(h, ip, within)
		if err == nil {
			defer c.Close()
			err = exchange(c, within)
		}
		out[0] = outcome(err)
	})
	wg.Go(func() {
		var c net.Conn
		err := h.Do(func() (err error) {
			c, err = net.Dial("udp6", net.JoinHostPort(ip, "4000"))
			return err
		})
		if err == nil {
			defer c.Close()
			err = exchange(c, within)
		}
		out[1] = outcome(err)
	})
	wg.Go(func() { out[2] = ping6(h, ip, within) })
	wg.Wait()
	return strings.Join(out[:], ", ")
}

func dial6(h *lab.Host, ip string, within time.Duration) (net.Conn, error) {
	return h.Dial(net.JoinHostPort(ip, "443"), within)
}

func ping6(h *lab.Host, ip string, within time.Duration) string {
	out, err := h.Output(context.Background(), "ping", "-6", "-n", "-c", "1", "-W", fmt.Sprintf("%.1f", within.Seconds()), ip)
	switch {
	case err == nil:
		return "ok"
	case strings.Contains(out, "prohibited"):
		return "prohibited"
	default:
		return "silence"
	}
}

const (
	allOK    = "ok, ok, ok"
	refused6 = "refused, prohibited, prohibited"
	told6    = "prohibited, prohibited, prohibited" // who begins from outside
	silence6 = "silence, silence, silence"
)

// IPv6 of who is blocked ends in both directions, nobody else's does, and the router
// itself is reached and reaches him.
func TestKernelIPv6OfTheBlocked(t *testing.T) {
	t.Parallel()
	const tracked = `table inet firewall {
		chain forward {
			type filter hook forward priority filter; policy accept;
			ct state established accept
		}
	}`
	for name, rules := range map[string]string{"no connection tracking": "", "connection tracking": tracked} {
		t.Run(name, func(t *testing.T) {
			n := newDual(t, rules)
			n.needEgress(t)
			table := n.openWith(acl.Options{Policy: ruleset.Policy{IPv6: true, Egress: "br0"}})
			mac := n.mac(n.first)
			within := func(want string) time.Duration {
				if strings.Contains(want, "silence") {
					return 250 * time.Millisecond
				}
				return patience
			}
			check := func(why, out, in, aloneOut, aloneIn string) {
				t.Helper()
				assert.Equal(t, out, reach(n.first, serverIPv6, within(out)), "%s: out", why)
				assert.Equal(t, in, reach(n.internet, firstIPv6, within(in)), "%s: in", why)
				assert.Equal(t, aloneOut, reach(n.alone, serverIPv6, within(aloneOut)), "%s: alone, out", why)
				assert.Equal(t, aloneIn, reach(n.internet, aloneIPv6, within(aloneIn)), "%s: alone, in", why)
				assert.Equal(t, allOK, reach(n.second, serverIPv6, patience), "%s: a neighbour, out", why)
				assert.Equal(t, allOK, reach(n.internet, secondIPv6, patience), "%s: a neighbour, in", why)
				n.checkRouter(why)
			}
			wish := func(set access.Set, ifset access.Set) access.ACL {
				want := access.ACL{access.SetIPv6Direct: access.Interfaces("br0")}
				if set != 0 {
					want[set], want[ifset] = access.Keys(mac[:]), access.Interfaces("down2")
				}
				return want
			}
			setTo(t, table, wish(0, 0))
			check("active", allOK, allOK, allOK, allOK)

			c, err := dial6(n.first, serverIPv6, patience)
			require.NoError(t, err)
			defer c.Close()
			require.NoError(t, exchange(c, patience))
			setTo(t, table, wish(access.SetPausedMAC, access.SetPausedInterface))
			assert.Equal(t, "refused", outcome(exchange(c, patience)), "a connection that was up")
			check("paused", refused6, silence6, refused6, told6)

			_, err = table.OpenFor(t.Context(), time.Hour)
			require.NoError(t, err)
			check("maintenance", allOK, allOK, allOK, allOK)
			passed := n.passed(ruleset.Policy{IPv6: true, Egress: "br0"})
			assert.Positive(t, passed["to_mac router"], "the router and the blocked one found each other")
			assert.Positive(t, passed["to_mac maintenance"])
			assert.Positive(t, passed["forward maintenance"])
			require.NoError(t, table.Shut(t.Context()))

			setTo(t, table, wish(access.SetStoppedMAC, access.SetStoppedInterface))
			check("stopped", silence6, silence6, silence6, silence6)

			setTo(t, table, wish(0, 0))
			check("active again", allOK, allOK, allOK, allOK)
			require.Zero(t, table.Repairs())
			require.Empty(t, table.IPv6Trouble())
		})
	}
}

// passed returns how many packets rules let past a block, by chain and what they are.
func (n *dual) passed(p ruleset.Policy) map[string]uint64 {
	n.t.Helper()
	r := acl.NewReader(acl.Options{NetNS: n.namespace()})
	defer r.Close()
	list, err := r.Passed(n.t.Context(), p)
	require.NoError(n.t, err)
	out := map[string]uint64{}
	for _, x := range list {
		out[x.Chain+" "+x.What] = x.Packets
	}
	return out
}

// checkRouter looks whether the router and the subscribers find and reach each other.
func (n *dual) checkRouter(why string) {
	n.t.Helper()
	for _, h := range []*lab.Host{n.host, n.first, n.alone} {
		require.NoError(n.t, h.IP("-6", "neigh", "flush", "all"))
	}
	assert.Equal(n.t, "ok", ping6(n.first, routerIPv6, patience), "%s: to the router", why)
	assert.Equal(n.t, "ok", ping6(n.host, firstIPv6, patience), "%s: from the router", why)
	assert.Equal(n.t, "ok", ping6(n.alone, "2001:db8:2::fffe", patience), "%s: alone, to the router", why)
	assert.Equal(n.t, "ok", ping6(n.first, "ff02::2%eth0", patience), "%s: to all routers, by link-local addresses", why)
	c, err := dial6(n.first, routerIPv6, patience)
	if assert.NoError(n.t, err, "%s: TCP to the router", why) {
		assert.NoError(n.t, exchange(c, patience), why)
		_ = c.Close()
	}
}

// needEgress skips where the kernel has no egress chains; where the kernel tests must run it fails.
func (n *dual) needEgress(t *testing.T) {
	t.Helper()
	missing := n.lacksEgress()
	switch {
	case missing == "":
	case os.Getenv("USHER_REQUIRE_KERNEL") == "1":
		t.Fatal(missing)
	default:
		t.Skip(missing)
	}
}

// lacksEgress says what this kernel lacks, by nft's own words.
func (n *dual) lacksEgress() string {
	if _, err := n.host.Output(n.t.Context(), "nft", `table netdev probe {
		chain c {
			type filter hook egress device "br0" priority filter; policy accept;
			fib saddr type local accept
		}
	}`); err != nil {
		return err.Error()
	}
	n.nft("delete", "table", "netdev", "probe")
	return ""
}

// requireSameButCounted requires two listings to be the same, but for what was counted between them: interfaces send packets of their
// own for a while after they came up.
func requireSameButCounted(t *testing.T, before, after, what string) {
	t.Helper()
	counted := regexp.MustCompile(`counter packets (\d+) bytes (\d+)`)
	require.Equal(t, counted.ReplaceAllString(before, "counter"), counted.ReplaceAllString(after, "counter"), what)
	was, is := counted.FindAllStringSubmatch(before, -1), counted.FindAllStringSubmatch(after, -1)
	for i := range was {
		for _, of := range []int{1, 2} {
			w, err := strconv.Atoi(was[i][of])
			require.NoError(t, err)
			n, err := strconv.Atoi(is[i][of])
			require.NoError(t, err)
			require.GreaterOrEqual(t, n, w, "%s: %s", what, is[i][0])
		}
	}
}

// Who edits or drops the table of the egress chains has it back; without the policy it goes.
func TestKernelEgressTableIsKept(t *testing.T) {
	t.Parallel()
	n := newDual(t, "")
	n.needEgress(t)
	policy := ruleset.Policy{IPv6: true, Egress: "br0 down2"}
	table := n.openWith(acl.Options{Policy: policy})
	mac := n.mac(n.first)
	want := access.ACL{access.SetIPv6Direct: access.Interfaces("br0", "down2"), access.SetPausedMAC: access.Keys(mac[:])}
	setTo(t, table, want)
	whole := n.nft("list", "table", "netdev", "usher")
	require.Contains(t, whole, mac.String())
	edits := []string{
		"delete table netdev usher",
		"delete element netdev usher paused_mac { " + mac.String() + " }",
		"add element netdev usher stopped_mac { 02:00:00:00:00:99 }",
		"flush chain netdev usher egress_br0",
		"add element netdev usher open { ip6 }",
		"add element netdev usher open { ip6 timeout 1h }",
		"add chain netdev usher more",
		"add rule netdev usher to_mac accept",
		`delete chain netdev usher egress_br0; add chain netdev usher egress_br0 { type filter hook egress device "down2" priority 0; policy accept; }`,
		"flush ruleset",
	}
	for i, edit := range edits {
		n.nft(strings.Split(edit, "\n")...)
		require.True(t, changed(t, table), edit)
		setTo(t, table, want)
		require.Equal(t, whole, n.nft("list", "table", "netdev", "usher"), edit)
		require.GreaterOrEqual(t, table.Repairs(), uint64(i+1), edit)
	}
	require.False(t, changed(t, table))

	before := n.ours("-a")
	require.NoError(t, table.Close())
	table = n.openWith(acl.Options{Policy: policy})
	observe(t, table)
	requireSameButCounted(t, before, n.ours("-a"), "taken over as it is")

	for edit, when := range map[string]string{ // while no agent runs
		"flush chain netdev usher egress_br0": "by the start", "delete element netdev usher paused_mac { " + mac.String() + " }": "by the first reading",
	} {
		require.NoError(t, table.Close())
		n.nft(edit)
		table = n.openWith(acl.Options{Policy: policy})
		if when == "by the first reading" {
			setTo(t, table, want)
		}
		require.Equal(t, whole, n.nft("list", "table", "netdev", "usher"), "%s: put right %s", edit, when)
	}

	// The kernel before 6.16 ends a chain with its interface; one that is new has none.
	require.NoError(t, n.host.IP("link", "del", "br0"))
	table.Reconfigure(ruleset.Policy{IPv6: true, Egress: "down2"})
	observe(t, table)
	require.NotContains(t, n.nft("list", "table", "netdev", "usher"), "br0")
	require.NoError(t, n.host.IP("link", "add", "br0", "type", "bridge"))
	table.Reconfigure(policy)
	observe(t, table)
	require.Contains(t, n.nft("list", "ruleset"), `device "br0"`)

	table.Reconfigure(ruleset.Policy{})
	observe(t, table)
	require.NotContains(t, n.nft("list", "ruleset"), "netdev")
	require.NotContains(t, n.list(), "chain ipv6")
	table.Reconfigure(policy)
	observe(t, table)
	require.NoError(t, table.Clear(t.Context()))
	require.NotContains(t, n.nft("list", "tables"), "table inet usher")
	require.NotContains(t, n.nft("list", "tables"), "netdev")
}

// Both tables are put right while somebody writes to a table of his own faster than ours are read.
func TestKernelRepairedWhileSomebodyWritesAllTheTime(t *testing.T) {
	n := newDual(t, "")
	n.needEgress(t)
	table := n.openWith(acl.Options{Policy: ruleset.Policy{IPv6: true, Egress: "br0"}})
	mac := n.mac(n.first)
	want := access.ACL{access.SetIPv6Direct: access.Interfaces("br0"), access.SetPausedMAC: access.Keys(mac[:]),
		access.SetStopped: access.Addrs(subscribers(0, 30_000)...)}
	setTo(t, table, want)
	counted := regexp.MustCompile(`counter packets (\d+) bytes (\d+)`)
	rules := func() string { // nft lists a long set that the kernel reorders wrongly: the elements are compared otherwise
		return counted.ReplaceAllString(n.nft("-t", "list", "table", "inet", "usher")+n.nft("list", "table", "netdev", "usher"), "counter")
	}
	before := rules()
	for _, edit := range []string{
		"flush chain inet usher forward",
		"add set inet usher strange { type ipv4_addr; }",
		"flush chain netdev usher egress_br0",
		"delete table netdev usher",
	} {
		n.nft(edit)
		end := n.writeAllTheTime()
		have, err := table.Observe(t.Context())
		writes := end()
		require.NoError(t, err, edit)
		t.Logf("%s: %d foreign commits meanwhile", edit, writes)
		require.Greater(t, writes, 8, edit)
		require.Equal(t, before, rules(), edit)
		require.Equal(t, want, have.Sorted(), edit)
		require.Empty(t, table.IPv6Trouble(), edit)
	}
}

// writeAllTheTime makes and drops a table of somebody else's until it is ended, which gives the number of commits.
func (r *router) writeAllTheTime() (end func() int) {
	r.t.Helper()
	w, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(r.namespace()))
	require.NoError(r.t, err)
	ctx, stop := context.WithCancel(r.t.Context())
	begun, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			busy := w.AddTable(&nftables.Table{Name: "busy", Family: nftables.TableFamilyINet})
			if n%2 == 1 {
				w.DelTable(busy)
			}
			assert.NoError(r.t, w.Flush())
			if n == 0 {
				close(begun)
			}
		}
		assert.NoError(r.t, w.CloseLasting())
		done <- n
	}()
	<-begun
	return func() int {
		stop()
		return <-done
	}
}

// Interfaces are asked for in the network namespace of the table.
func TestKernelEgressInterfaceIsAskedFor(t *testing.T) {
	n := newDual(t, "")
	table := n.open()
	require.True(t, table.HasDevice("br0"))
	require.False(t, table.HasDevice("gone0"))
	require.NoError(t, n.host.IP("link", "add", "gone0", "type", "bridge"))
	require.True(t, table.HasDevice("gone0"))
	require.NoError(t, n.host.IP("link", "del", "gone0"))
	require.False(t, table.HasDevice("gone0"))
}

// A kernel that takes no egress chain has all else, and it is said.
func TestKernelWithoutEgress(t *testing.T) {
	n := newDual(t, "")
	table := n.openWith(acl.Options{Policy: ruleset.Policy{IPv6: true, Egress: "no-interface-has-this-name"}})
	require.Contains(t, table.IPv6Trouble(), "no egress chain")
	mac := n.mac(n.first)
	setTo(t, table, access.ACL{access.SetIPv6Direct: access.Interfaces("br0"), access.SetPausedMAC: access.Keys(mac[:]),
		access.SetPaused: access.Addrs(netip.MustParseAddr("100.64.0.9"))})
	require.Equal(t, refused6, reach(n.first, serverIPv6, patience))
	require.False(t, changed(t, table))
	require.Equal(t, map[string]bool{"100.64.0.9": true}, n.elements("paused"))
	n.requireText(table)
	until, err := table.OpenFor(t.Context(), time.Hour)
	require.NoError(t, err)
	require.False(t, until.IsZero())
	table.Reconfigure(ruleset.Policy{IPv6: true, Egress: "br0"})
	observe(t, table)
	if n.lacksEgress() == "" {
		require.Empty(t, table.IPv6Trouble())
		require.Contains(t, n.nft("list", "ruleset"), `device "br0"`)
	}
}
