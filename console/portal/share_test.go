package portal

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console/door"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

var (
	macA = provision.MAC{2, 0, 0, 0, 0, 0xa}
	macB = provision.MAC{2, 0, 0, 0, 0, 0xb}
)

// leases is what a Directory asks.
type leases map[netip.Addr]lease.Record

func (l leases) Get(ip netip.Addr) (lease.Record, bool) { r, ok := l[ip]; return r, ok }

// neighbours is an ARP table of the interface 7.
type neighbours map[netip.Addr]provision.MAC

func (n neighbours) wire(a netip.Addr) (int, provision.MAC, bool) { mac, ok := n[a]; return 7, mac, ok }

func TestShares(t *testing.T) {
	addr := netip.MustParseAddr
	line := func(ip string, id provision.SubscriberID, mac provision.MAC) provision.Line {
		return provision.Line{Subscriber: id, MAC: mac, Addresses: provision.Hosts4(addr(ip))}
	}
	snap, _ := provision.Build(provision.Input{Lines: []provision.Line{
		line("198.51.100.1", 1, macA), line("198.51.100.2", 1, provision.MAC{}), line("198.51.100.3", 3, provision.MAC{}),
	}, CustomerSubnets: []provision.Subnet{{Prefix: netip.MustParsePrefix("203.0.113.8/29"), Subscriber: 1}}})
	until := time.Now().Add(time.Hour)
	d := Directory{
		Snapshot: func() *provision.Snapshot { return snap },
		Leases: leases{
			addr("198.51.100.3"):   {MAC: macA, Subscriber: 3, State: lease.StateBound, Expires: until},
			addr("198.51.100.200"): {MAC: macB, State: lease.StateBound, Expires: until, Pool: "guests"},
			addr("198.51.100.201"): {MAC: macB, State: lease.StateBound, Expires: time.Now().Add(-time.Hour), Pool: "guests"},
		},
	}
	for name, tt := range map[string]struct {
		from string
		arp  neighbours
		want Share
	}{
		"behind a router":             {"198.51.100.1", nil, Share{Subscriber: 1, Vouched: true}},
		"another address of his":      {"198.51.100.2", nil, Share{Subscriber: 1, Vouched: true}},
		"at the bound MAC":            {"198.51.100.1", neighbours{addr("198.51.100.1"): macA}, Share{Subscriber: 1, Vouched: true}},
		"at the MAC of the lease":     {"198.51.100.3", neighbours{addr("198.51.100.3"): macA}, Share{Subscriber: 3, Vouched: true}},
		"typed by a neighbour":        {"198.51.100.1", neighbours{addr("198.51.100.1"): macB}, Share{Wire: Wire{7, macB}}},
		"no MAC is known":             {"198.51.100.2", neighbours{addr("198.51.100.2"): macB}, Share{Wire: Wire{7, macB}}},
		"a guest":                     {"198.51.100.200", neighbours{addr("198.51.100.200"): macB}, Share{Addr: addr("198.51.100.200"), Vouched: true}},
		"a guest whose lease is over": {"198.51.100.201", neighbours{addr("198.51.100.201"): macB}, Share{}},
		"in his subnet":               {"203.0.113.9", nil, Share{Subscriber: 1, Vouched: true}},
		"in his subnet, on the wire":  {"203.0.113.9", neighbours{addr("203.0.113.9"): macB}, Share{Wire: Wire{7, macB}}},
		"nobody's address":            {"203.0.113.99", neighbours{addr("203.0.113.99"): macB}, Share{}},
		"nobody's, behind a router":   {"203.0.113.99", nil, Share{}},
	} {
		t.Run(name, func(t *testing.T) {
			d := d
			d.Wire = tt.arp.wire
			require.Equal(t, tt.want, d.Share(addr(tt.from)))
		})
	}
}

// One host with many addresses, of nobody or typed from its neighbours', holds all the
// connections that it gets: everybody else sees the page.
func TestOneHostStarvesNobody(t *testing.T) {
	const hosts = 160
	for name, share := range map[string]Share{"nobody's addresses": {}, "addresses of neighbours": {Wire: Wire{7, macB}}} {
		t.Run(name, func(t *testing.T) {
			s, c := newServer(t, testOptions())
			s.Shared(func(a netip.Addr) Share {
				if a == netip.MustParseAddr("127.0.0.9") {
					return Share{Subscriber: 1001, Vouched: true}
				}
				return share
			})
			addr := listenOn(t, s, false)
			dial := func(from string) (net.Conn, error) {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
				return d.Dial("tcp4", addr)
			}
			for host := range hosts {
				n := maxPerSource // until it is crowded
				if host*maxPerSource >= maxConns/2 {
					n = maxInCrowd
				}
				for range n {
					conn, err := dial(fmt.Sprintf("127.0.1.%d", host+1))
					if err != nil {
						continue // refused
					}
					defer conn.Close()
					_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\n") // and never more
				}
			}
			client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
				DialContext: func(context.Context, string, string) (net.Conn, error) { return dial("127.0.0.9") }}}
			resp, err := client.Get("http://" + addr + "/")
			require.NoError(t, err)
			defer resp.Body.Close()
			require.Equal(t, 200, resp.StatusCode)
			require.Positive(t, c.refusals(RefusedSource)+c.refusals(RefusedRate))
			require.Zero(t, c.refusals(RefusedTotal))
		})
	}
}

// Whatever the others hold, whoever has his address by right gets a page.
func TestAVouchedSourceAlwaysHasRoom(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	customer := netip.MustParseAddr("203.0.113.1")
	s := newSources(func() time.Time { return now }, func(a netip.Addr) Share { return Share{Addr: a, Vouched: a == customer} })
	for i := range 1 << 16 {
		_, _ = s.admit(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	require.Equal(t, 1536, s.conns)
	for range maxPromised {
		_, why := s.admit(customer)
		require.Empty(t, why)
	}
	_, why := s.admit(customer)
	require.Equal(t, RefusedTotal, why)
}

// However a host asks, on however many connections that stay, what is answered to it is
// bounded; a customer's page is not what it loses.
func TestRequestsAreBounded(t *testing.T) {
	const conns, each = 64, 200
	now := time.Unix(1_700_000_000, 0)
	customer := netip.MustParseAddr("127.0.0.9")
	s, c := newServer(t, testOptions())
	s.sources.now = func() time.Time { return now }
	s.Shared(func(a netip.Addr) Share { return Share{Addr: a, Vouched: a == customer} })
	addr := listenOn(t, s, false)
	var answers atomic.Int64
	var all sync.WaitGroup
	for range conns {
		conn, err := net.Dial("tcp4", addr)
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		all.Go(func() { _, _ = io.WriteString(conn, strings.Repeat("HEAD / HTTP/1.1\r\nHost: "+addr+"\r\n\r\n", each)) })
		all.Go(func() {
			for r := bufio.NewReader(conn); ; answers.Add(1) {
				resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodHead})
				if err != nil {
					return
				}
				_ = resp.Body.Close()
			}
		})
	}
	all.Wait()
	require.LessOrEqual(t, answers.Load(), int64(connBurst))
	require.GreaterOrEqual(t, c.refusals(RefusedRate), conns-connBurst/each, "all but those that had all their answers")
	require.Equal(t, map[string]int{"unknown 200": connBurst}, c.requests, "of 12,800")

	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: customer.AsSlice()}, Timeout: 5 * time.Second}).Dial("tcp4", addr)
		}}}
	resp, err := client.Get("http://" + addr + "/")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

// All together ask no more than the portal may be asked, but whoever has his address by right
// gets as many answers as he may have pages, and his browser by itself.
func TestRequestsOfAllAreBounded(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := newSources(func() time.Time { return now }, func(a netip.Addr) Share {
		return Share{Addr: a, Vouched: a.As4()[0] == 203}
	})
	ask := func(a netip.Addr, browser bool, n int) (answered int, last Refusal) {
		for range n {
			if last = s.mayAsk(a, browser); last == "" {
				answered++
			}
		}
		return answered, last
	}
	typed := 0
	for i := range 100 {
		n, _ := ask(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), true, 1000)
		require.LessOrEqual(t, n, connBurst)
		typed += n
	}
	require.Equal(t, askBurst*3/4, typed)
	_, why := ask(netip.AddrFrom4([4]byte{10, 0, 1, 0}), true, 1)
	require.Equal(t, RefusedTotal, why)
	wild, sum := netip.AddrFrom4([4]byte{203, 0, 113, 0}), 0
	for i := range 3 {
		n, _ := ask(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), false, 1000)
		sum += n
	}
	require.Equal(t, askBurst/4+3*pageBurst, sum)
	n, _ := ask(wild, true, 1000)
	require.Equal(t, pageBurst, n, "its own programs do not take its browser's part")
	n, _ = ask(netip.AddrFrom4([4]byte{203, 0, 113, 99}), false, 1000)
	require.Equal(t, pageBurst, n, "whatever the others ask")
	now = now.Add(time.Second)
	n, why = ask(netip.AddrFrom4([4]byte{10, 0, 1, 1}), false, 1000)
	require.Equal(t, connBurst, n)
	require.Equal(t, RefusedRate, why)
}

// Who gets the short page, because he asks too often, has to come anew for the next.
func TestTheShortPageEndsTheConnection(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s, _ := newServer(t, testOptions())
	s.sources.now = func() time.Time { return now }
	for i := range pageBurst + 1 {
		w := ask(s, false, httptest.NewRequest("GET", "http://192.0.2.2:8080/", nil), "198.51.100.1")
		require.Equal(t, 200, w.Code)
		require.Equal(t, i == pageBurst, w.Header().Get("Connection") == "close", i)
		require.Equal(t, i == pageBurst, w.Body.Len() < 200, i)
	}
}

// The same where the process may open few files and the door lets in less.
func TestAVouchedSourceHasRoomBehindASmallDoor(t *testing.T) {
	for _, total := range []int{16, 80, 417} {
		t.Run(fmt.Sprint(total), func(t *testing.T) {
			customer := netip.MustParseAddr("203.0.113.1")
			s, _ := newServer(t, testOptions())
			d := door.New(door.Options{Total: total})
			s.Through(d)
			s.Shared(func(a netip.Addr) Share { return Share{Addr: a, Vouched: a == customer} })
			l := s.door.Listener(limited{&knocks{from: func(i int) netip.Addr {
				if i < 2000 {
					return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
				}
				return customer
			}, n: 2000 + maxPromised}, s.sources, s.obs})
			for {
				c, err := l.Accept()
				if err != nil {
					break
				}
				d.State(c, http.StateActive) // a body that never comes
			}
			st := d.Status()
			require.Empty(t, st.Refused)
			require.Zero(t, st.EndedIdle+st.EndedBusy)
			require.Equal(t, maxPromised, s.sources.known[customer].conns)
			require.Greater(t, st.Inside, total/2)
		})
	}
}

// knocks is a listener at which n connections come.
type knocks struct {
	net.Listener
	from func(i int) netip.Addr
	n, i int
}

func (k *knocks) Accept() (net.Conn, error) {
	if k.i == k.n {
		return nil, net.ErrClosed
	}
	k.i++
	return knock{from: k.from(k.i - 1)}, nil
}

// knock is a connection of a host elsewhere.
type knock struct {
	net.Conn
	from netip.Addr
}

func (k knock) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(k.from, 40000))
}
func (k knock) Close() error { return nil }

// However often hosts change their MACs, no more is remembered of them than there is room
// for, and whoever has his address by right keeps his own share.
func TestSharesAreBounded(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	customer := netip.MustParseAddr("203.0.113.1")
	macs := 0
	s := newSources(func() time.Time { return now }, func(a netip.Addr) Share {
		if a == customer {
			return Share{Subscriber: 1, Vouched: true}
		}
		macs++
		return Share{Wire: Wire{7, provision.MAC{2, 0, 0, byte(macs >> 16), byte(macs >> 8), byte(macs)}}}
	})
	visit := func(a netip.Addr) Share {
		src, why := s.admit(a)
		require.Empty(t, why)
		s.release(src)
		return src.key
	}
	for range 3 * maxSources {
		now = now.Add(recheckShare)
		visit(netip.MustParseAddr("10.0.0.1"))
	}
	require.LessOrEqual(t, len(s.shares), maxSources)
	require.Equal(t, 3*maxSources, macs)

	// Faster than anything is forgotten.
	for range 2 {
		now = now.Add(recheckShare)
		for i := range maxSources - 2 {
			s.at(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), now)
		}
	}
	require.LessOrEqual(t, len(s.shares), maxSources)
	require.Equal(t, Share{}, visit(netip.MustParseAddr("10.0.0.1")), "no room")
	require.Equal(t, Share{Subscriber: 1, Vouched: true}, visit(customer))
}
