// Package load is many DHCP clients behind one relay, as fast as a server answers
// them, on one socket and one goroutine. It allocates nothing while it runs, and
// knows of each client what was acknowledged.
package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/usher-agent/usher/bench/batch"
	"github.com/usher-agent/usher/dhcpd/wire"
)

// Options are what all clients have in common.
type Options struct {
	Server   netip.AddrPort // that the relay asks
	Relay    netip.Addr     // whose giaddr they get
	InFlight int            // clients that wait for an answer at a time, at most; 0: 64
	Rate     int            // clients that begin in a second, at most; 0: as many as InFlight lets
	Retry    time.Duration  // after which an unanswered packet is sent again; 0: 2 s. Clients wait for 4 s (RFC 2131 section 4.1)
	Tries    int            // after so many packets without an answer a client gives up; 0: 5
}

// Client is one of them. IP is what was acknowledged last; invalid: nothing.
type Client struct {
	MAC  [6]byte
	Port uint32 // its port's number, of which PortName makes the circuit-id
	IP   netip.Addr
}

// Result is what a run came to.
type Result struct {
	Acked   int
	Lost    int             // clients that gave up
	Naks    int             // their clients begin anew
	Retries int             // packets that were sent again
	Strange int             // answers that fit no question, such as one that came twice
	Latency []time.Duration // from a client's first packet to its ACK, of those that have one, sorted
	Took    time.Duration
}

// Percentile returns the latency that p in 100 clients stay within; 0 without any.
func (r *Result) Percentile(p int) time.Duration {
	if len(r.Latency) == 0 {
		return 0
	}
	return r.Latency[min(len(r.Latency)*p/100, len(r.Latency)-1)]
}

// String tells it on one line.
func (r *Result) String() string {
	return fmt.Sprintf("%d acknowledged in %v, %d lost, %d NAKs, %d retries, %d strange answers; median %v, 99th percentile %v",
		r.Acked, r.Took.Round(time.Millisecond), r.Lost, r.Naks, r.Retries, r.Strange, r.Percentile(50), r.Percentile(99))
}

// A transaction id is the number of the run and that of the client.
const (
	clientBits = 24
	maxClients = 1 << clientBits
)

// step is what a client waits for.
type step uint8

const (
	done    step = iota
	offered      // an OFFER
	leased       // the ACK of what was offered
	renewed      // the ACK of a renewal
)

// exchange is where a client is.
type exchange struct {
	step   step
	tries  int // of the packet that it waits for an answer to
	naks   int
	ip     netip.Addr // offered to it, or to renew
	server netip.Addr
	began  time.Time
	sent   time.Time
}

// Generator sends clients' packets from one socket.
type Generator struct {
	o       Options
	conn    *batch.Conn
	packet  *template
	epoch   uint32 // of transaction ids: what is late of an earlier run fits none of this
	clients []Client
	states  []exchange
	active  []int32 // the clients that wait
	res     Result
}

// New returns one that sends from conn, which the relay's address is at.
func New(conn *batch.Conn, o Options) *Generator {
	o.InFlight = cmp.Or(o.InFlight, 64)
	o.Retry = cmp.Or(o.Retry, 2*time.Second)
	o.Tries = cmp.Or(o.Tries, 5)
	return &Generator{o: o, conn: conn, packet: newTemplate(o.Relay)}
}

// Lease has each client get an address by DISCOVER, OFFER, REQUEST and ACK.
func (g *Generator) Lease(ctx context.Context, clients []Client) (Result, error) {
	return g.run(ctx, clients, offered)
}

// Renew has each client ask for what it has once more, by a REQUEST with ciaddr
// through the relay (RFC 2131 section 4.3.6). Each must have an address.
func (g *Generator) Renew(ctx context.Context, clients []Client) (Result, error) {
	return g.run(ctx, clients, renewed)
}

func (g *Generator) run(ctx context.Context, clients []Client, first step) (Result, error) {
	n := len(clients)
	if n > maxClients {
		return Result{}, fmt.Errorf("load: %d clients in one run: want %d at most", n, maxClients)
	}
	g.clients, g.states = clients, make([]exchange, n)
	g.active = make([]int32, 0, g.o.InFlight)
	g.res = Result{Latency: make([]time.Duration, 0, n)}
	g.epoch++
	begin := time.Now()
	looked, now := begin, begin
	for next := 0; next < n || len(g.active) > 0; {
		if err := ctx.Err(); err != nil {
			return g.res, fmt.Errorf("load: %d of %d clients: %w", g.res.Acked, n, context.Cause(ctx))
		}
		due := n
		if g.o.Rate > 0 {
			due = min(n, 1+int(now.Sub(begin)*time.Duration(g.o.Rate)/time.Second))
		}
		for ; next < due && len(g.active) < g.o.InFlight; next++ {
			s := &g.states[next]
			*s = exchange{step: first, ip: clients[next].IP, began: now}
			g.active = append(g.active, int32(next))
			if first == renewed && !s.ip.Is4() {
				return g.res, fmt.Errorf("load: client %d has no address to renew", next)
			}
			if err := g.send(next, now); err != nil {
				return g.res, err
			}
		}
		if err := g.conn.Flush(); err != nil {
			return g.res, err
		}
		got, err := g.conn.Receive(time.Millisecond)
		if err != nil {
			return g.res, err
		}
		now = time.Now()
		for i := range got {
			if err := g.receive(g.conn.Packet(i), now); err != nil {
				return g.res, err
			}
		}
		if now.Sub(looked) > 10*time.Millisecond {
			looked = now
			if err := g.again(now); err != nil {
				return g.res, err
			}
		}
		g.rest()
	}
	g.res.Took = time.Since(begin)
	slices.Sort(g.res.Latency)
	return g.res, nil
}

// rest takes those that are done out of the active ones.
func (g *Generator) rest() {
	g.active = slices.DeleteFunc(g.active, func(i int32) bool { return g.states[i].step == done })
}

// again repeats what was not answered in time.
func (g *Generator) again(now time.Time) error {
	for _, i := range g.active {
		s := &g.states[i]
		switch {
		case s.step == done || now.Sub(s.sent) < g.o.Retry:
		case s.tries >= g.o.Tries:
			s.step = done
			g.res.Lost++
		default:
			g.res.Retries++
			if err := g.send(int(i), now); err != nil {
				return err
			}
		}
	}
	return nil
}

// send queues what client i has to say where it is.
func (g *Generator) send(i int, now time.Time) error {
	s := &g.states[i]
	s.tries++
	s.sent = now
	q := question{xid: g.epoch<<clientBits ^ uint32(i), mac: g.clients[i].MAC, port: g.clients[i].Port}
	switch s.step {
	case offered:
		q.kind = wire.Discover
	case leased:
		q.kind, q.requested, q.server = wire.Request, s.ip, s.server
	default:
		q.kind, q.ciaddr = wire.Request, s.ip
	}
	return g.conn.Queue(g.packet.fill(&q), g.o.Server)
}

// receive takes one answer.
func (g *Generator) receive(b []byte, now time.Time) error {
	var p wire.Packet
	if err := p.Parse(b); err != nil || p.Op() != 2 {
		return errors.Join(errors.New("load: the server sent what is no answer"), err)
	}
	i := p.XID() ^ g.epoch<<clientBits
	if uint64(i) >= uint64(len(g.states)) {
		g.res.Strange++
		return nil
	}
	s, c := &g.states[i], &g.clients[i]
	if mac, ok := p.MAC(); !ok || mac != c.MAC {
		g.res.Strange++
		return nil
	}
	switch kind := p.Type(); {
	case kind == wire.Offer && s.step == offered:
		s.step, s.tries, s.ip, s.server = leased, 0, p.YIAddr(), p.ServerID()
		if !s.server.IsValid() {
			s.server = g.o.Server.Addr()
		}
		return g.send(int(i), now)
	case kind == wire.Ack && (s.step == leased || s.step == renewed):
		s.step, c.IP = done, p.YIAddr()
		g.res.Acked++
		g.res.Latency = append(g.res.Latency, now.Sub(s.began))
	case kind == wire.Nak && (s.step == leased || s.step == renewed):
		g.res.Naks++
		c.IP = netip.Addr{}
		if s.naks++; s.naks >= g.o.Tries {
			s.step = done
			g.res.Lost++
			return nil
		}
		s.step, s.tries = offered, 0
		return g.send(int(i), now)
	default:
		g.res.Strange++
	}
	return nil
}

// Doubled returns an address that two clients were acknowledged; false if there is none.
func Doubled(clients []Client) (netip.Addr, bool) {
	seen := make(map[netip.Addr]struct{}, len(clients))
	for i := range clients {
		ip := clients[i].IP
		if _, ok := seen[ip]; ok && ip.IsValid() {
			return ip, true
		}
		seen[ip] = struct{}{}
	}
	return netip.Addr{}, false
}
