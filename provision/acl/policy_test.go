package acl_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/acl/ruleset"
	"github.com/usher-agent/usher/provision/link/lab"
)

const (
	gardenIP      = "192.0.2.10"
	guestGardenIP = "192.0.2.11"
	resolverIP    = "192.0.2.53"
	strangerIP    = "192.0.2.54" // another resolver
	portalPort    = 8080
)

// world is an isp with services on the internet and a portal on the router.
type world struct {
	*isp
	table *acl.Table
}

func newWorld(t *testing.T, rules string, policy ruleset.Policy) *world {
	t.Helper()
	w := &world{isp: newISP(t, rules)}
	for _, ip := range []string{gardenIP, guestGardenIP, resolverIP, strangerIP} {
		require.NoError(t, w.internet.IP("addr", "add", ip+"/24", "dev", "eth0"))
		for _, port := range []int{53, 443, 4000} {
			w.echo(w.internet, net.JoinHostPort(ip, strconv.Itoa(port)))
		}
		w.page(w.internet, ip+":80", "page of "+ip)
	}
	for _, port := range []int{443, 4000} {
		w.echo(w.internet, net.JoinHostPort(serverIP, strconv.Itoa(port)))
	}
	w.page(w.internet, serverIP+":80", "page of "+serverIP)
	w.page(w.host, "0.0.0.0:"+strconv.Itoa(portalPort), "portal")
	// The kernel sends a destination six ICMP errors at once and then one a
	// second (icmp(7), icmp_ratelimit): here each try is to have its own.
	require.NoError(t, w.host.Sysctl("net.ipv4.icmp_ratelimit", "0"))
	w.table = w.openWith(acl.Options{Policy: policy})
	require.NoError(t, w.table.PortalUp(t.Context(), 10*time.Minute))
	return w
}

// echo answers what comes to a TCP and a UDP port.
func (w *world) echo(h *lab.Host, address string) {
	w.t.Helper()
	ln, err := h.Listen(address)
	require.NoError(w.t, err)
	s := serve(ln)
	w.t.Cleanup(s.close)
	pc, err := h.ListenPacket(address)
	require.NoError(w.t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(buf[:n], from)
		}
	}()
	w.t.Cleanup(func() {
		_ = pc.Close()
		<-done
	})
}

// page serves one page, which ends with the client's address.
func (w *world) page(h *lab.Host, address, text string) {
	w.t.Helper()
	ln, err := h.Listen(address)
	require.NoError(w.t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		_, _ = fmt.Fprintf(rw, "%s for %s", text, host)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln)
	}()
	w.t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
}

// outcome is what a subscriber sees of a try.
func outcome(err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return "refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EACCES):
		return "prohibited"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return "silence"
	default:
		return err.Error()
	}
}

// try makes one attempt of a kind at a target.
func (w *world) try(h *lab.Host, kind, ip string, within time.Duration) string {
	switch kind {
	case "ping":
		out, err := h.Output(context.Background(), "ping", "-n", "-c", "1", "-W", fmt.Sprintf("%.1f", within.Seconds()), ip)
		switch {
		case err == nil:
			return "ok"
		case strings.Contains(out, "Packet filtered"):
			return "prohibited"
		default:
			return "silence"
		}
	case "http":
		client := http.Client{Timeout: within, Transport: &http.Transport{DisableKeepAlives: true,
			DialContext: func(_ context.Context, _, addr string) (net.Conn, error) { return h.Dial(addr, within) }}}
		resp, err := client.Get("http://" + ip + "/")
		if err != nil {
			return outcome(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return outcome(err)
		}
		return string(body)
	}
	proto, port, _ := strings.Cut(kind, " ")
	address := net.JoinHostPort(ip, port)
	if proto == "tcp" {
		c, err := h.Dial(address, within)
		if err != nil {
			return outcome(err)
		}
		defer c.Close()
		return outcome(exchange(c, within))
	}
	var c net.Conn
	if err := h.Do(func() (err error) {
		c, err = net.Dial("udp4", address)
		return err
	}); err != nil {
		return outcome(err)
	}
	defer c.Close()
	return outcome(exchange(c, within))
}

// view is what a subscriber sees of everything, all tried at once.
func (w *world) view(h *lab.Host, within time.Duration) map[string]string {
	out := map[string]string{}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, kind := range []string{"tcp 443", "udp 4000", "http", "ping"} {
		for name, ip := range map[string]string{"anybody": serverIP, "garden": gardenIP, "guest garden": guestGardenIP} {
			wg.Go(func() {
				got := w.try(h, kind, ip, within)
				mu.Lock()
				defer mu.Unlock()
				out[kind+" to "+name] = got
			})
		}
	}
	for _, kind := range []string{"udp 53", "tcp 53"} {
		for name, ip := range map[string]string{"resolver": resolverIP, "stranger": strangerIP} {
			wg.Go(func() {
				got := w.try(h, kind, ip, within)
				mu.Lock()
				defer mu.Unlock()
				out[kind+" to "+name] = got
			})
		}
	}
	wg.Wait()
	out["ping to the router"] = w.try(h, "ping", routerIP, within)
	return out
}

// seen is what a subscriber in a state should see. self is how the pages name it.
func seen(state string, self func(page string) string) map[string]string {
	out := map[string]string{}
	garden := map[string]string{"paused": "garden", "guest": "guest garden"}[state]
	for _, name := range []string{"anybody", "garden", "guest garden"} {
		ip := map[string]string{"anybody": serverIP, "garden": gardenIP, "guest garden": guestGardenIP}[name]
		passes := state == "active" || name == garden
		for kind, refusal := range map[string]string{"tcp 443": "refused", "udp 4000": "prohibited", "ping": "prohibited"} {
			switch {
			case passes:
				out[kind+" to "+name] = "ok"
			case state == "stopped":
				out[kind+" to "+name] = "silence"
			default:
				out[kind+" to "+name] = refusal
			}
		}
		switch {
		case passes:
			out["http to "+name] = self("page of " + ip)
		case state == "stopped":
			out["http to "+name] = "silence"
		default:
			out["http to "+name] = "portal for 100.64.0.1" // never translated
		}
	}
	for kind, refusal := range map[string]string{"udp 53": "prohibited", "tcp 53": "refused"} {
		out[kind+" to resolver"], out[kind+" to stranger"] = "ok", refusal
		switch state {
		case "active":
			out[kind+" to stranger"] = "ok"
		case "stopped":
			out[kind+" to resolver"], out[kind+" to stranger"] = "silence", "silence"
		}
	}
	out["ping to the router"] = "ok"
	return out
}

func (w *world) put(state string) {
	w.t.Helper()
	want := access.ACL{
		access.SetGarden:      access.Prefixes(prefixesOf(gardenIP + "/32")...),
		access.SetGuestGarden: access.Prefixes(prefixesOf(guestGardenIP + "/32")...),
		access.SetResolvers:   access.Prefixes(prefixesOf(resolverIP + "/32")...),
	}
	self := access.Addrs(w.firstAddr)
	switch state {
	case "stopped":
		want[access.SetStopped] = self
	case "paused":
		want[access.SetPaused] = self
	case "guest":
		want[access.SetGuests] = self
	}
	setTo(w.t.(*testing.T), w.table, want)
}

func prefixesOf(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

const masquerade = `table ip nat {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "wan0" masquerade
	}
}`

// Every state after every other: what passes, what is refused and how.
func TestKernelPolicies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, rules, self string }{
		{"routed", "", "100.64.0.1"},
		{"source addresses translated", masquerade, "192.0.2.254"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.rules, ruleset.Policy{Portal: netip.AddrPortFrom(netip.IPv4Unspecified(), portalPort)})
			states := []string{"active", "paused", "stopped", "guest"}
			self := func(page string) string { return page + " for " + tt.self }
			for i := range len(states) * len(states) {
				from, to := states[i/len(states)], states[i%len(states)]
				w.put(from)
				w.put(to)
				within := patience
				if to == "stopped" {
					within = 200 * time.Millisecond
				}
				if diff := cmp.Diff(seen(to, self), w.view(w.first, within)); diff != "" {
					t.Errorf("%s after %s (-want +got):\n%s", to, from, diff)
				}
			}

			// The switch lets everybody through, and ends by itself.
			w.put("stopped")
			until, err := w.table.OpenFor(t.Context(), 2*time.Second)
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(seen("active", self), w.view(w.first, time.Second)))
			require.NotEqual(t, "ok", w.afterwards(until, "tcp 443", serverIP))
			require.Zero(t, w.table.OpenUntil())
			require.False(t, changed(t, w.table), "the end of a maintenance is no change")
			require.Zero(t, w.table.Repairs())
		})
	}
}

// afterwards tries until a time is over and gives the first outcome after it.
func (w *world) afterwards(until time.Time, kind, ip string) string {
	tick := time.NewTicker(5 * time.Millisecond) // thousands of connections a second would leave tests beside this one no descriptor
	defer tick.Stop()
	for ; ; <-tick.C {
		began := time.Now()
		got := w.try(w.first, kind, ip, 100*time.Millisecond)
		if began.Before(until) { // on a busy machine an answer may be late
			continue
		}
		// The kernel counts in ticks of its own clock: a moment later is in time.
		if got != "ok" || began.After(until.Add(200*time.Millisecond)) {
			return got
		}
	}
}

// Flows that are up when the state changes.
func TestKernelLiveFlowsAtAPause(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string]string{"routed": "", "translated": masquerade} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, rules, ruleset.Policy{Portal: netip.AddrPortFrom(netip.IPv4Unspecified(), portalPort)})
			w.put("active")
			dial := func(addr string) net.Conn {
				c, err := w.first.Dial(addr, patience)
				require.NoError(t, err)
				t.Cleanup(func() { _ = c.Close() })
				return c
			}
			anybody, garden, web := dial(serverIP+":443"), dial(gardenIP+":443"), dial(serverIP+":80")
			for _, c := range []net.Conn{anybody, garden} {
				require.NoError(t, exchange(c, patience))
			}
			w.put("paused")
			require.Equal(t, "refused", outcome(exchange(anybody, patience)))
			require.NoError(t, exchange(garden, patience), "what may go on goes on")
			_, err := web.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
			require.NoError(t, err)
			_, err = io.ReadAll(web)
			require.ErrorIs(t, err, syscall.ECONNRESET, "nat sees new flows only: the old one is reset")
			require.Equal(t, "portal for 100.64.0.1", w.try(w.first, "http", serverIP, patience))
			w.put("stopped")
			require.Equal(t, "silence", outcome(exchange(garden, 200*time.Millisecond)))
		})
	}
}

func TestKernelCountersOfWhatWasRefused(t *testing.T) {
	w := newWorld(t, "", ruleset.Policy{})
	count := func() access.Counter {
		got, err := w.table.Counters(t.Context(), []netip.Addr{w.firstAddr, netip.MustParseAddr("203.0.113.7")})
		require.NoError(t, err)
		require.NotContains(t, got, netip.MustParseAddr("203.0.113.7"))
		return got[w.firstAddr]
	}
	w.put("active")
	require.Equal(t, "ok", w.try(w.first, "ping", serverIP, time.Second))
	require.Zero(t, count())
	const size = 84 // of an echo request
	for i, state := range []string{"paused", "stopped", "guest"} {
		w.put(state)
		require.NotEqual(t, "ok", w.try(w.first, "ping", serverIP, 100*time.Millisecond))
		require.NotEqual(t, "ok", w.try(w.internet, "ping", w.firstAddr.String(), 100*time.Millisecond))
		require.Equal(t, access.Counter{Packets: uint64(2 * (i + 1)), Bytes: uint64(2 * size * (i + 1))}, count())
	}
	w.put("paused")
	require.Equal(t, "ok", w.try(w.first, "ping", gardenIP, time.Second))
	require.Equal(t, "ok", w.try(w.first, "udp 53", resolverIP, time.Second))
	require.EqualValues(t, 6, count().Packets, "what passes is not refused")
	require.False(t, changed(t, w.table))
	_, err := w.table.Counters(t.Context(), []netip.Addr{netip.MustParseAddr("2001:db8::1")})
	require.ErrorContains(t, err, "not IPv4")
}

// tracked returns the number of connections that the router tracks.
func (w *world) tracked() int {
	w.t.Helper()
	var n int
	require.NoError(w.t, w.host.Do(func() error {
		b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err != nil {
			return err
		}
		n, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err
	}))
	return n
}

func TestKernelTrackingStartsForThePortalOnly(t *testing.T) {
	w := newWorld(t, "", ruleset.Policy{SourceGuard: true})
	w.nft("delete table inet firewall")
	w.put("paused")
	before := w.tracked()
	require.Equal(t, "ok", w.try(w.first, "tcp 443", gardenIP, time.Second))
	require.Equal(t, "refused", w.try(w.first, "http", serverIP, time.Second), "no portal")
	require.LessOrEqual(t, w.tracked(), before, "entries appeared")

	w.table.Reconfigure(ruleset.Policy{Portal: netip.MustParseAddrPort("192.0.2.254:8080")})
	observe(t, w.table)
	require.Equal(t, "portal for 100.64.0.1", w.try(w.first, "http", serverIP, time.Second), "on the address that was named")
	require.Greater(t, w.tracked(), 0)
}

func TestKernelSourceGuard(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", ruleset.Policy{SourceGuard: true})
	mac := func(h *lab.Host) provision.MAC {
		out, err := h.Output(t.Context(), "cat", "/sys/class/net/eth0/address")
		require.NoError(t, err)
		m, err := provision.ParseMAC(strings.TrimSpace(out))
		require.NoError(t, err)
		return m
	}
	guard := access.ACL{
		access.SetGuardedDirect: access.Interfaces("down0"), access.SetGuardedVLAN: access.Interfaces("down1"),
		access.SetBoundDirect: access.DirectBindings(access.DirectBinding{IP: w.firstAddr, MAC: mac(w.first)}),
		access.SetBoundVLAN:   access.VLANBindings(access.VLANBinding{Interface: "down1", IP: netip.MustParseAddr("100.64.1.1")}),
		access.SetExempt:      access.Prefixes(prefixesOf("100.64.0.99/32")...),
	}
	setTo(t, w.table, guard)
	ping := func(h *lab.Host, from, to string) bool {
		_, err := h.Output(t.Context(), "ping", "-n", "-c", "1", "-W", "0.3", "-I", from, to)
		return err == nil
	}
	require.True(t, ping(w.first, "100.64.0.1", serverIP))
	require.True(t, ping(w.second, "100.64.1.1", serverIP))

	// Addresses of others: of nobody, of the other subscriber, and of an exempt one.
	for _, ip := range []string{"100.64.0.77", "100.64.1.1", "100.64.0.99"} {
		require.NoError(t, w.first.IP("addr", "add", ip+"/24", "dev", "eth0"))
	}
	require.NoError(t, w.second.IP("addr", "add", "100.64.1.77/24", "dev", "eth0"))
	require.False(t, ping(w.first, "100.64.0.77", serverIP))
	require.False(t, ping(w.first, "100.64.0.77", routerIP), "the router is no exception")
	require.False(t, ping(w.first, "100.64.1.1", serverIP))
	require.True(t, ping(w.first, "100.64.0.99", serverIP), "exempt")
	require.False(t, ping(w.second, "100.64.1.77", serverIP))

	// DHCP, whatever the source.
	pc, err := w.host.ListenPacket("0.0.0.0:67")
	require.NoError(t, err)
	defer pc.Close()
	send := func(port string) error {
		var c net.PacketConn
		require.NoError(t, w.first.Do(func() (err error) {
			c, err = net.ListenPacket("udp4", "100.64.0.77:"+port)
			return err
		}))
		defer c.Close()
		_, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.ParseIP(routerIP), Port: 67})
		require.NoError(t, err)
		require.NoError(t, pc.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
		_, _, err = pc.ReadFrom(make([]byte, 1))
		return err
	}
	require.NoError(t, send("68"))
	require.ErrorIs(t, send("69"), os.ErrDeadlineExceeded)

	// The right address with another MAC.
	require.NoError(t, w.first.IP("link", "set", "eth0", "address", "02:00:00:00:00:99"))
	require.False(t, ping(w.first, "100.64.0.1", serverIP))
	// Until duplicate address detection is done, neither end has an address to speak from.
	for h, dev := range map[*lab.Host]string{w.host: "down0", w.first: "eth0"} {
		require.Eventually(t, func() bool {
			out, err := h.Output(t.Context(), "ip", "-6", "-o", "addr", "show", "dev", dev, "scope", "link", "-tentative")
			return err == nil && out != ""
		}, 10*time.Second, 10*time.Millisecond, "%s has no link-local address", dev)
	}
	out, err := w.host.Output(t.Context(), "ping", "-6", "-n", "-c", "1", "-W", "2", "ff02::1%down0")
	require.NoError(t, err, "IPv6 neighbours are not looked at: %s", out)

	// The switch opens this door too.
	_, err = w.table.OpenFor(t.Context(), time.Minute)
	require.NoError(t, err)
	require.True(t, ping(w.first, "100.64.0.77", serverIP))
	require.NoError(t, w.table.Shut(t.Context()))
	require.False(t, ping(w.first, "100.64.0.77", serverIP))
	guard[access.SetBoundDirect] = access.DirectBindings(access.DirectBinding{IP: w.firstAddr, MAC: mac(w.first)})
	setTo(t, w.table, guard)
	require.True(t, ping(w.first, "100.64.0.1", serverIP), "bound anew")
}

// lossless pings without a pause and tells how many packets were lost; the last
// may still be on its way at the end.
func (w *world) lossless(h *lab.Host, to string) func() {
	w.t.Helper()
	flood, err := h.Start("ping", "-n", "-q", "-i", "0.002", to)
	require.NoError(w.t, err)
	return func() {
		w.t.Helper()
		require.NoError(w.t, flood.Signal(syscall.SIGINT))
		_ = flood.Wait(w.t.Context())
		m := regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`).FindStringSubmatch(flood.Log())
		require.NotNil(w.t, m, flood.Log())
		sent, _ := strconv.Atoi(m[1])
		received, _ := strconv.Atoi(m[2])
		w.t.Logf("%d packets of an unblocked subscriber, %d came back", sent, received)
		require.Greater(w.t, sent, 50)
		require.LessOrEqual(w.t, sent-received, 1)
	}
}

// What an unblocked subscriber loses by all that is done for the others, by new
// policies, migrations and repairs: nothing. The source guard is on and knows it.
func TestKernelUnblockedSubscriberLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, masquerade, ruleset.Policy{SourceGuard: true})
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	self := netip.MustParseAddr("100.64.1.1")
	wish := func() access.ACL {
		want := randomWish(rng)
		want[access.SetGuardedVLAN] += access.Interfaces("down1")
		want[access.SetBoundVLAN] += access.VLANBindings(access.VLANBinding{Interface: "down1", IP: self})
		want[access.SetStopped] += access.Addrs(subscribers(1<<16, rng.IntN(5000))...)
		return want.Sorted()
	}
	setTo(t, w.table, wish())
	policies := []ruleset.Policy{{SourceGuard: true}, {}, {Portal: netip.MustParseAddrPort("0.0.0.0:8080"), SourceGuard: true}}
	end := w.lossless(w.second, serverIP)
	for i := range long.Times(t, 15, 1500) {
		switch i % 5 {
		case 3: // a migration
			w.table.Reconfigure(policies[rng.IntN(len(policies))])
		case 4: // somebody breaks the rules
			w.nft("add", "chain", "inet", "usher", "strange")
		}
		setTo(t, w.table, wish())
	}
	w.nft("delete", "table", "inet", "usher") // unblocks, and blocks nobody
	setTo(t, w.table, wish())
	end()
}
