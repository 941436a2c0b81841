package acl_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/link/lab"
)

const (
	serverIP   = "192.0.2.1"
	serverAddr = serverIP + ":7000"
	routerIP   = "100.64.0.254"
	patience   = 3 * time.Second
)

// isp is a router between two subscribers and the internet. Another table of it
// accepts established flows and counts what passes for the first subscriber.
type isp struct {
	*router
	first, second, internet *lab.Host
	firstAddr               netip.Addr
	server                  *server
}

func newISP(t *testing.T, rules string) *isp {
	t.Helper()
	n := &isp{router: newRouter(t), firstAddr: netip.MustParseAddr("100.64.0.1")}
	host := func(name string) *lab.Host {
		h, err := n.lab.Host(name)
		require.NoError(t, err)
		return h
	}
	n.first, n.second, n.internet = host("first"), host("second"), host("internet")
	for i, h := range []*lab.Host{n.first, n.second} {
		dev := fmt.Sprintf("down%d", i)
		require.NoError(t, n.lab.Wire(n.host, dev, h, "eth0"))
		require.NoError(t, n.host.IP("addr", "add", fmt.Sprintf("100.64.%d.254/24", i), "dev", dev))
		require.NoError(t, h.IP("addr", "add", fmt.Sprintf("100.64.%d.1/24", i), "dev", "eth0"))
		require.NoError(t, h.IP("route", "add", "default", "via", fmt.Sprintf("100.64.%d.254", i)))
	}
	require.NoError(t, n.lab.Wire(n.host, "wan0", n.internet, "eth0"))
	require.NoError(t, n.host.IP("addr", "add", "192.0.2.254/24", "dev", "wan0"))
	require.NoError(t, n.internet.IP("addr", "add", serverIP+"/24", "dev", "eth0"))
	require.NoError(t, n.internet.IP("route", "add", "100.64.0.0/10", "via", "192.0.2.254"))
	require.NoError(t, n.host.Sysctl("net.ipv4.ip_forward", "1"))
	n.nft(`table inet firewall {
		counter passed { }
		chain forward {
			type filter hook forward priority filter; policy accept;
			ip saddr 100.64.0.1 counter name passed
			ip daddr 100.64.0.1 counter name passed
			ct state established accept
		}
	}`)
	if rules != "" {
		n.nft(rules)
	}
	ln, err := n.internet.Listen(serverAddr)
	require.NoError(t, err)
	n.server = serve(ln)
	t.Cleanup(n.server.close)
	return n
}

// passed returns how many packets of the first subscriber came past our table.
func (n *isp) passed() int {
	n.t.Helper()
	var doc struct {
		Nftables []struct {
			Counter struct {
				Packets int `json:"packets"`
			} `json:"counter"`
		} `json:"nftables"`
	}
	require.NoError(n.t, json.Unmarshal([]byte(n.nft("-j", "list", "counter", "inet", "firewall", "passed")), &doc))
	total := 0
	for _, x := range doc.Nftables {
		total += x.Counter.Packets
	}
	return total
}

func (n *isp) dial(h *lab.Host) net.Conn {
	n.t.Helper()
	c, err := h.Dial(serverAddr, patience)
	require.NoError(n.t, err)
	n.t.Cleanup(func() { _ = c.Close() })
	require.NoError(n.t, exchange(c, patience))
	return c
}

// ping sends one echo request and gives what ping prints.
func (n *isp) ping(h *lab.Host, to string) (string, error) {
	return h.Output(n.t.Context(), "ping", "-n", "-c", "1", "-W", "1", to)
}

// server answers each byte and keeps its connections for the test.
type server struct {
	ln    net.Listener
	done  sync.WaitGroup
	mu    sync.Mutex // guards conns
	conns []peer
}

// peer is the server's end of a subscriber's connection.
type peer struct {
	net.Conn
	ended chan error // gets the reason
}

func serve(ln net.Listener) *server {
	s := &server{ln: ln}
	s.done.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p := peer{c, make(chan error, 1)}
			s.mu.Lock()
			s.conns = append(s.conns, p)
			s.mu.Unlock()
			s.done.Go(func() {
				_, err := io.Copy(c, c)
				p.ended <- err
			})
		}
	})
	return s
}

func (s *server) close() {
	_ = s.ln.Close()
	s.mu.Lock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.done.Wait()
}

// peer finds the other end of a subscriber's connection.
func (s *server) peer(t *testing.T, c net.Conn) peer {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.conns {
		if p.RemoteAddr().String() == c.LocalAddr().String() {
			return p
		}
	}
	require.FailNow(t, "no such connection at the server", c.LocalAddr().String())
	return peer{}
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

// flow is a connection in steady use: a byte every few milliseconds, whether
// the last one was answered or not. (Who only waits for an answer that is lost
// sends again, and learns of a reset, after TCP's 200 ms.)
type flow struct {
	answers int
	errs    []error // of writing and reading; the reset is told to only one of them
	at      time.Time
	done    chan struct{}
}

func startFlow(ctx context.Context, c net.Conn) *flow {
	f := &flow{done: make(chan struct{})}
	errs := make(chan error)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		var err error
		for err == nil {
			select {
			case <-ctx.Done():
				err = ctx.Err()
			case <-tick.C:
				_, err = c.Write([]byte{1})
			}
		}
		_ = c.SetReadDeadline(time.Now())
		errs <- err
	}()
	go func() {
		_ = c.SetDeadline(time.Time{})
		for buf := make([]byte, 1); ; f.answers++ {
			if _, err := io.ReadFull(c, buf); err != nil {
				errs <- err
				return
			}
		}
	}()
	go func() {
		defer close(f.done)
		f.errs = append(f.errs, <-errs)
		f.at = time.Now()
		f.errs = append(f.errs, <-errs)
	}()
	return f
}

func TestKernelTrafficOfBlockedSubscribers(t *testing.T) {
	tests := []struct {
		name   string
		rules  string
		routed bool // the internet can reach subscribers by their addresses
	}{
		{"routed", "", true},
		{"source addresses translated", `table ip nat {
			chain postrouting {
				type nat hook postrouting priority srcnat; policy accept;
				oifname "wan0" masquerade
			}
		}`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newISP(t, tt.rules)
			table := n.open()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			bystander := startFlow(ctx, n.dial(n.second))

			testPaused(t, n, table, tt.routed)
			testStopped(t, n, table)

			cancel()
			<-bystander.done
			require.ErrorIs(t, errors.Join(bystander.errs...), context.Canceled, "the other subscriber lost its connection")
			require.NotErrorIs(t, errors.Join(bystander.errs...), syscall.ECONNRESET)
			require.Greater(t, bystander.answers, 100)
			t.Logf("the other subscriber: %d answers", bystander.answers)
		})
	}
}

type applier interface {
	Observe(context.Context) (access.ACL, error)
	Apply(context.Context, []access.Change) error
}

func setTo(t *testing.T, k applier, want access.ACL) {
	t.Helper()
	have, err := k.Observe(t.Context())
	require.NoError(t, err)
	require.NoError(t, k.Apply(t.Context(), access.Plan(want, have)))
}

func testPaused(t *testing.T, n *isp, k applier, routed bool) {
	t.Helper()
	idle := n.dial(n.first)
	var inside net.Listener
	if routed {
		var err error
		inside, err = n.first.Listen("100.64.0.1:7001")
		require.NoError(t, err)
		defer inside.Close()
		c, err := n.internet.Dial("100.64.0.1:7001", patience)
		require.NoError(t, err)
		_ = c.Close()
	}

	took := pause(t, n, k)
	for tries := 1; took > 200*time.Millisecond && tries < 3; tries++ {
		// A busy machine may be late; one that never is in time is not.
		setTo(t, k, access.ACL{})
		took = pause(t, n, k)
	}
	require.Less(t, took, 200*time.Millisecond)

	if routed {
		// The far end sends first: it learns of the end as well.
		peer := n.server.peer(t, idle)
		_, err := peer.Write([]byte{1})
		require.NoError(t, err)
		begin := time.Now()
		select {
		case err := <-peer.ended:
			require.ErrorIs(t, err, syscall.ECONNRESET)
			t.Logf("its server saw the reset after %s", time.Since(begin))
		case <-time.After(patience):
			require.FailNow(t, "the server still holds a paused subscriber's flow")
		}

		begin = time.Now()
		_, err = n.internet.Dial("100.64.0.1:7001", patience)
		require.ErrorIs(t, err, syscall.EHOSTUNREACH, "a connection from the internet")
		require.Less(t, time.Since(begin), time.Second)
	}
	require.ErrorIs(t, exchange(idle, patience), syscall.ECONNRESET, "the idle flow of a paused subscriber")

	begin := time.Now()
	_, err := n.first.Dial(serverAddr, patience)
	require.ErrorIs(t, err, syscall.ECONNREFUSED, "a new connection of a paused subscriber")
	require.Less(t, time.Since(begin), time.Second)
	out, err := n.ping(n.first, serverIP)
	require.Error(t, err)
	require.Contains(t, out, "Packet filtered")
	_, err = n.ping(n.first, routerIP)
	require.NoError(t, err, "the router itself, as for DHCP")

	setTo(t, k, access.ACL{})
	n.dial(n.first)
	_, err = n.ping(n.first, serverIP)
	require.NoError(t, err)
}

// pause blocks the first subscriber, and gives the time from the decision to the
// end of a live flow.
func pause(t *testing.T, n *isp, k applier) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	busy := startFlow(ctx, n.dial(n.first))
	begin := time.Now()
	setTo(t, k, access.ACL{access.SetPaused: access.Addrs(n.firstAddr)})
	<-busy.done
	require.ErrorIs(t, errors.Join(busy.errs...), syscall.ECONNRESET, "the live flow of a paused subscriber")
	took := busy.at.Sub(begin)
	t.Logf("a paused subscriber's live flow was reset %s after the decision", took)
	return took
}

func testStopped(t *testing.T, n *isp, k applier) {
	t.Helper()
	c := n.dial(n.first)
	setTo(t, k, access.ACL{access.SetStopped: access.Addrs(n.firstAddr)})
	passed := n.passed()
	require.ErrorIs(t, exchange(c, 200*time.Millisecond), os.ErrDeadlineExceeded)
	_, err := n.first.Dial(serverAddr, 200*time.Millisecond)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout, "a new connection of a stopped subscriber")
	require.True(t, timeout.Timeout(), err)
	out, err := n.ping(n.internet, n.firstAddr.String())
	require.Error(t, err)
	assert.NotContains(t, out, "filtered")
	require.Equal(t, passed, n.passed(), "packets of a stopped subscriber passed")
	_, err = n.ping(n.first, routerIP)
	require.NoError(t, err, "the router itself, as for DHCP")

	// Nobody was told, so the connection goes on where it stood.
	setTo(t, k, access.ACL{})
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	_, err = io.ReadFull(c, make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, exchange(c, patience))
	require.Greater(t, n.passed(), passed)
}

// A table of another shape is replaced while packets of a stopped subscriber
// arrive without a pause: none passes, for the old rules go with the new ones' coming.
func TestKernelReplacementLetsNothingThrough(t *testing.T) {
	n := newISP(t, "")
	table := n.open()
	setTo(t, table, access.ACL{access.SetStopped: access.Addrs(append(subscribers(1, 1), subscribers(5000, 5000)...)...)})
	flood, err := n.first.Start("ping", "-n", "-q", "-i", "0.001", serverIP)
	require.NoError(t, err)
	before := n.passed()
	for range long.Times(t, 20, 1000) {
		n.nft("add", "chain", "inet", "usher", "strange")
		require.Equal(t, 5001, observe(t, table).Counts()[access.SetStopped])
		require.NotContains(t, n.list(), "strange")
	}
	require.NoError(t, flood.Signal(syscall.SIGINT)) // ping prints its counts
	_ = flood.Wait(t.Context())
	require.Regexp(t, `[0-9]{2,} packets transmitted, 0 received`, flood.Log())
	require.Equal(t, before, n.passed())
}
