package access

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/provision"
)

// What a client writes into DHCP is its word alone: it may write a neighbour's MAC there. So the MAC of a lease counts for IPv6, to block
// it or to keep it open, only once frames of that MAC have spoken for the address of the lease on its wire. Who sends such frames
// takes the neighbour's traffic on that wire anyway, whatever we do.

// heard is which clients of leases were.
type heard struct {
	mu sync.RWMutex
	at map[uint32]voice // by the address of the lease

	trouble string // why nobody is heard
}

type voice struct {
	mac  provision.MAC
	wire string
}

func (h *heard) has(ip netip.Addr, mac provision.MAC, wire string) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.at[number(ip)] == voice{mac, wire}
}

func (h *heard) note(ip netip.Addr, mac provision.MAC, wire string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at == nil {
		h.at = map[uint32]voice{}
	}
	h.at[number(ip)] = voice{mac, wire}
}

// forget ends what was heard of a lease that is over: its address may be somebody else's next, and its MAC a neighbour's.
func (h *heard) forget(ip netip.Addr) {
	if h == nil || !ip.Is4() {
		return
	}
	h.mu.RLock()
	_, known := h.at[number(ip)]
	h.mu.RUnlock()
	if !known {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.at, number(ip))
}

// Heard tells that frames of a MAC spoke for an address on an interface. It matters if that is the live lease of the address.
func (f *Follower) Heard(wire string, ip netip.Addr, mac provision.MAC) {
	h := &f.sources.heard
	if !ip.Is4() || h.has(ip, mac, wire) {
		return
	}
	rec, ok := f.sources.leases.Get(ip)
	if !ok || rec.MAC != mac || rec.Interface != wire || rec.GIAddr.IsValid() || !rec.Live(time.Now()) {
		return
	}
	h.note(ip, mac, wire)
	f.enforcer.follow([]netip.Addr{ip}, false)
}

// hearAgain takes clients for heard whose leases alone can have blocked their MACs in what the last run left in the kernel: it had heard them.
func (r *rules) hearAgain(s *provision.Snapshot, in *Inputs, have *ACL) {
	if in.Leases == nil || in.LeasesOf == nil || !r.wires {
		return
	}
	r.findLost(s)
	for g := range in.Leases {
		ip := g.IP.Unmap()
		if !g.Unheard || !ip.Is4() || g.MAC.IsZero() || s.ByMAC(g.MAC).Len()+len(r.lost[g.MAC]) > 0 {
			continue
		}
		if key := string(g.MAC[:]); !SetStoppedMAC.has(have[SetStoppedMAC], key) && !SetPausedMAC.has(have[SetPausedMAC], key) {
			continue
		}
		if len(in.LeasesOf(g.MAC)) != 1 { // whichever it was
			continue
		}
		r.recall(s, g.holder())
		x := r.of(s, ip, &g)
		if block, _ := r.client(s, ip, x.block, &g); block != 0 {
			in.heard.note(ip, g.MAC, g.Interface)
		}
	}
}

// Deaf tells that nobody is heard now, and why; nil: who speaks is.
func (f *Follower) Deaf(why error) {
	h := &f.sources.heard
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.trouble = ""; why != nil {
		h.trouble = why.Error()
	}
}

// deaf returns why nobody is heard; empty: who speaks is.
func (h *heard) deaf() string {
	if h == nil {
		return ""
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.trouble
}

// Unheard is a lease whose MAC would count for IPv6 and was not heard yet.
type Unheard struct {
	IP         netip.Addr             `json:"ip"`
	MAC        provision.MAC          `json:"mac"`
	Interface  string                 `json:"interface"`
	Subscriber provision.SubscriberID `json:"subscriber"` // zero: a guest
	Blocked    bool                   `json:"-"`          // else its client has a MAC that somebody blocked has
	Renewed    time.Time              `json:"-"`          // its newest ACK
}

// UnheardMACs are those of the blocked, the first ones by name.
type UnheardMACs struct {
	Count int       `json:"count"`
	First []Unheard `json:"first,omitempty"`
	Deaf  string    `json:"deaf,omitempty"` // why nobody is heard at all
}

// addUnheard notes a lease that is left out.
func (r *rules) addUnheard(ip netip.Addr, g *Grant, blocked bool, id provision.SubscriberID) {
	if r.unheard == nil {
		r.unheard = map[netip.Addr]Unheard{}
	}
	r.unheard[ip] = Unheard{ip, g.MAC, g.Interface, id, blocked, g.Renewed}
}

// leaveOut is addUnheard for a lease of who is blocked that changed after the round.
func (p *picture) leaveOut(ip netip.Addr, g *Grant, id provision.SubscriberID) {
	p.mu.RLock()
	known := p.rules.unheard[ip].MAC == g.MAC
	p.mu.RUnlock()
	if known {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules.addUnheard(ip, g, true, id)
}

// unheardNow returns the leases left out that would change something now, in order.
func (p *picture) unheardNow() (out []Unheard) {
	p.mu.RLock()
	left := slices.Collect(maps.Values(p.rules.unheard))
	p.mu.RUnlock()
	for _, u := range left {
		if p.rules.lease != nil {
			g, live := p.rules.lease(u.IP)
			if !live || g.MAC != u.MAC {
				continue
			}
			u.Renewed = g.Renewed
		}
		if p.in.heard != nil && p.in.heard.has(u.IP, u.MAC, u.Interface) {
			continue
		}
		if set := p.linkIn(string(u.MAC[:]), SetStoppedMAC, SetPausedMAC); u.Blocked == (set == 0) {
			out = append(out, u)
		}
	}
	slices.SortFunc(out, func(a, b Unheard) int { return a.IP.Compare(b.IP) })
	return out
}

// unheardMACs returns those of the blocked.
func (p *picture) unheardMACs() (u UnheardMACs) {
	u.Deaf = p.in.heard.deaf()
	for _, x := range p.unheardNow() {
		if !x.Blocked {
			continue
		}
		if u.Count++; len(u.First) < sharedListed {
			u.First = append(u.First, x)
		}
	}
	return u
}

// Unheard returns the leases, in order, whose clients are worth being asked whether they are there.
func (e *Enforcer) Unheard() []Unheard {
	p := e.shown.Load()
	if p == nil {
		return nil
	}
	return p.unheardNow()
}

// LeftOut reports whether a MAC is that of a lease of who is blocked, and not heard.
func (e *Enforcer) LeftOut(mac provision.MAC) bool {
	return slices.ContainsFunc(e.Unheard(), func(u Unheard) bool { return u.Blocked && u.MAC == mac })
}
