package access

import (
	"context"
	"net/netip"

	"github.com/usher-agent/usher/provision"
)

// follow has addresses looked at whose leases may have changed. Those whose rights
// are what is shown cost a look into the table and into the sets. For the others a
// small batch is on its way to the kernel when it returns. done is closed when it
// is over, well or not; nil: there is nothing to wait for, or wait is false.
func (e *Enforcer) follow(addrs []netip.Addr, wait bool) (done <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		return nil
	}
	p := e.shown.Load()
	switch {
	case p == nil && !e.busy:
		return nil // the first round is to come and reads all leases
	case p != nil && p.rules.lease == nil && !e.busy:
		return nil // leases give nothing
	}
	differs := p == nil
	for _, ip := range addrs {
		if ip = ip.Unmap(); !ip.Is4() {
			continue
		}
		settled := p != nil && e.settledLocked(p, ip)
		_, inHand := e.inHand[ip] // what the step read of it may be on its way to the kernel
		differs = differs || !settled || inHand || !e.keptLocked(ip)
		// A step that is on works with what it has read: whatever it shows, this is looked at after it.
		if !settled || e.busy {
			if e.touched == nil {
				e.touched = map[netip.Addr]struct{}{}
			}
			e.touched[ip] = struct{}{}
		}
	}
	if !differs || len(e.touched) == 0 {
		return nil
	}
	if wait && !e.opts.DryRun {
		w := make(chan struct{})
		e.admits, done = append(e.admits, w), w
	}
	notify(e.wake)
	return done
}

// settledLocked reports whether an address has the rights that are shown. If so it
// is looked at again when its lease ends.
func (e *Enforcer) settledLocked(p *picture, ip netip.Addr) bool {
	snap := e.snapshot()
	x, g := p.rules.now(snap, ip)
	if x != p.of(ip) || !p.samePoolOwner(ip, &g) {
		return false
	}
	if p.rules.ipv6() {
		_, n, whole := p.relink(snap, ip, &x, &g, false)
		p.watch(e.ends.add)
		if n > 0 || whole {
			e.full = e.full || whole
			return false
		}
	}
	if !e.ends.covers(ip, g.Until) && (endMatters(p.rules, snap, ip, &x) || !p.tiedTo(ip).IsZero()) {
		e.ends.add(ip, g.Until)
		if e.ends.next.Equal(g.Until) {
			notify(e.wake) // it is the next thing to happen
		}
	}
	return true
}

// keptLocked reports whether the round that is on leaves an address the rights that it has now. If not, what it has read of its lease is
// over, and its batch takes away what stands.
func (e *Enforcer) keptLocked(ip netip.Addr) bool {
	if e.coming == nil {
		return true
	}
	x, _ := e.coming.rules.now(e.snapshot(), ip)
	return x == e.coming.of(ip)
}

// endMatters reports whether an address has other rights when its lease is over.
func endMatters(r *rules, s *provision.Snapshot, ip netip.Addr, x *rights) bool {
	return r.of(s, ip, &Grant{}) != *x
}

// patch brings single addresses to the rights that they have now.
func (e *Enforcer) patch(ctx context.Context, j *job, p *picture) error {
	if len(j.touched)+len(j.ended) == 0 {
		return nil
	}
	var (
		wants, has elements
		changed    = map[netip.Addr]rights{}
		rewired    = wires{}
		links      []relinked
		told       = map[string]bool{}
		runOut     []Grant
		owners     = map[provision.SubscriberID]struct{}{}
	)
	look := func(ip netip.Addr) {
		x, g := p.rules.now(p.snap, ip)
		if old := p.of(ip); x != old {
			changed[ip] = x
			wants.add(ip, &x)
			has.add(ip, &old)
			rewired.move(p.wires, &old, &x)
			p.ownersOf(ip, &g, owners)
		} else if !p.samePoolOwner(ip, &g) {
			p.ownersOf(ip, &g, owners)
		}
		if p.rules.ipv6() {
			changes, n, whole := p.relink(p.snap, ip, &x, &g, true)
			if whole {
				e.Kick()
			}
			for _, l := range changes[:n] {
				if !told[l.key] {
					told[l.key] = true
					links = append(links, l)
					wants.addLink(l.now, l.key)
					has.addLink(l.was, l.key)
				}
			}
		}
		if !g.Until.IsZero() && (endMatters(p.rules, p.snap, ip, &x) || !p.tiedTo(ip).IsZero()) {
			g.IP = ip
			runOut = append(runOut, g)
		}
	}
	for ip := range j.touched {
		look(ip)
	}
	for _, network := range j.ended {
		for n := range uint32(256) {
			look(addrOf(network<<8 | n))
		}
	}
	e.mu.Lock()
	for i := range runOut {
		e.ends.add(runOut[i].IP, runOut[i].Until)
	}
	p.watch(e.ends.add)
	e.mu.Unlock()
	moved := p.moveOwners(owners, &wants, &has)
	if len(changed)+len(moved)+len(links) == 0 {
		return nil
	}
	for name, t := range rewired {
		wants.wire(name, t.alone())
		has.wire(name, p.wires[name].alone())
	}
	return e.apply(ctx, j.opts, p, &news{changed, rewired, moved, links}, wants.acl(), has.acl())
}

// apply makes changes of single addresses hold and shows them. want and have are
// the elements of these addresses.
func (e *Enforcer) apply(ctx context.Context, opts Options, p *picture, n *news, want, have ACL) error {
	if !opts.DryRun {
		if err := e.commit(ctx, want, have, Plan(want, have)); err != nil {
			return err
		}
	}
	counts := p.set(n, want, have)
	e.update(func(s *Status) {
		s.Want = counts
		s.WantStopped, s.WantPaused = counts[SetStopped], counts[SetPaused]
		if opts.DryRun {
			s.Pending = counts.total()
		}
	})
	if !opts.DryRun {
		e.tellHave(counts)
	}
	return nil
}
