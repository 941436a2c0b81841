package provision

import (
	"cmp"
	"net/netip"
	"slices"
)

// Keeping returns a copy of s, which is newer than old, in which some subscribers are as they are in old: those of lines
// with their lines and subnets, and those of states with their state. Whoever has in s an address or a subnet that one of
// the former keeps is kept as in old, too, and so are those who have in s what that one keeps: an address has one owner, and
// the new one comes together with the change of the old one. These further subscribers are in beside, each with the
// one for whose sake it is kept. The rows that are kept are of an earlier fetch: see AcceptedRow.
func (s *Snapshot) Keeping(old *Snapshot, lines, states []SubscriberID) (next *Snapshot, beside map[SubscriberID]SubscriberID) {
	as := make(map[SubscriberID]bool, len(states))
	for _, id := range states {
		as[id] = true
	}
	subs := s.subscribersKeeping(old, as)
	if len(lines) == 0 {
		t := s.t
		if t.disputes(func(id SubscriberID) bool { return as[id] }) {
			t = t.again(subs)
		}
		return s.with(t, subs), nil
	}
	kept, beside := s.closure(old, lines)
	stays := func(id SubscriberID) bool { return kept[id] }
	leaves := func(id SubscriberID) bool { return !kept[id] }
	c, nets := &claims{}, []Subnet(nil)
	for _, from := range []struct {
		s    *Snapshot
		want func(SubscriberID) bool
	}{{s, leaves}, {old, stays}} {
		c.addOf(from.s.t.lines, from.want)
		c.addOf(from.s.t.contested, from.want)
		for _, n := range from.s.SubnetClaims() {
			if from.want(n.Subscriber) {
				nets = append(nets, n)
			}
		}
	}
	t := newTables(c, s.t.kept, subs, s.devicesKeeping(old, kept), nil)
	next = newSnapshot(t, subs, s.source, s.fetchedAt)
	next.nets = newSubnets(nets, slices.Concat(s.gateways(), old.gateways()), t, subs)
	next.word = s.word
	if old.DevicesUnread() && old.t.onMade(kept) {
		next.word.devicesUnread = true // the true ports of these are still to come
	}
	if s.word.rows != nil {
		next.word.rows = t
		next.word.earlier = slices.Clone(s.word.earlier)
		for id := range kept {
			next.word.earlier = append(next.word.earlier, id)
		}
		slices.Sort(next.word.earlier)
	}
	return next, beside
}

// WithStatesOf returns a copy of s that has the subscribers of o with their states.
func (s *Snapshot) WithStatesOf(o *Snapshot) *Snapshot {
	t := s.t
	if len(t.contested) > 0 {
		t = t.again(o.subs)
	}
	return s.with(t, o.subs)
}

// onMade reports whether a line of some subscribers is on a switch that was made of rows.
func (t *tables) onMade(of map[SubscriberID]bool) bool {
	made := func(l Line) bool { return l.Device.Made() && of[l.Subscriber] }
	return slices.ContainsFunc(t.lines, made) || slices.ContainsFunc(t.contested, made)
}

// addOf adds the lines of some subscribers.
func (c *claims) addOf(lines []Line, want func(SubscriberID) bool) {
	for i := range lines {
		if want(lines[i].Subscriber) {
			c.addAll(lines[i : i+1])
		}
	}
}

// closure returns who is kept if those of lines are, and who of them is for the sake of whom.
func (s *Snapshot) closure(old *Snapshot, lines []SubscriberID) (kept map[SubscriberID]bool, beside map[SubscriberID]SubscriberID) {
	kept, beside = make(map[SubscriberID]bool, len(lines)), make(map[SubscriberID]SubscriberID)
	for _, id := range lines {
		kept[id] = true
	}
	contested := make(map[netip.Addr][]SubscriberID) // who claims an address beside the one who has it
	for i := range s.t.contested {
		if c := &s.t.contested[i]; !c.Vacant() {
			contested[c.first()] = append(contested[c.first()], c.Subscriber)
		}
	}
	queue := slices.Clone(lines)
	for len(queue) > 0 {
		id := queue[0]
		queue = queue[1:]
		take := func(others ...SubscriberID) {
			for _, other := range others {
				if !kept[other] {
					kept[other], beside[other] = true, id
					queue = append(queue, other)
				}
			}
		}
		for l := range old.BySubscriber(id).All() {
			for ip := range l.Hosts4() {
				if now := s.ByIP(ip); now != nil {
					take(now.Subscriber)
				}
				take(contested[ip]...)
			}
		}
		for _, n := range old.SubnetsOf(id) {
			claims := s.SubnetClaims()
			i, _ := slices.BinarySearchFunc(claims, n, compareSubnets)
			for ; i < len(claims) && claims[i].Prefix == n.Prefix; i++ {
				take(claims[i].Subscriber)
			}
		}
	}
	return kept, beside
}

// subscribersKeeping returns the subscribers of s, but some as they are in old, where they may not be listed.
func (s *Snapshot) subscribersKeeping(old *Snapshot, as map[SubscriberID]bool) []Subscriber {
	subs := make([]Subscriber, 0, len(s.subs)+len(as))
	for _, sub := range s.subs {
		if !as[sub.ID] {
			subs = append(subs, sub)
		}
	}
	for id := range as {
		if sub, listed := old.Subscriber(id); listed {
			subs = append(subs, sub)
		}
	}
	slices.SortFunc(subs, func(a, b Subscriber) int { return cmp.Compare(a.ID, b.ID) })
	return subs
}

// devicesKeeping returns the switches of s, and those of old that s has no more and that lines of kept subscribers name.
func (s *Snapshot) devicesKeeping(old *Snapshot, kept map[SubscriberID]bool) []Device {
	missing := make(map[DeviceID]bool)
	for i := range old.t.lines {
		if l := &old.t.lines[i]; kept[l.Subscriber] && s.Device(l.Device) == nil {
			missing[l.Device] = true
		}
	}
	devices := slices.Clip(s.t.devices)
	for id := range missing {
		if d := old.Device(id); d != nil {
			devices = append(devices, *d)
		}
	}
	if len(devices) > len(s.t.devices) {
		slices.SortFunc(devices, func(a, b Device) int { return cmp.Compare(a.ID, b.ID) })
	}
	return devices
}
