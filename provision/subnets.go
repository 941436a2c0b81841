package provision

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync"
)

// Subnet is a whole subnet that the ERP gives to a customer beside the addresses of
// clients (ip_subnet_add). It is on no line: it lies behind its customer's own router.
type Subnet struct {
	Prefix     netip.Prefix
	Subscriber SubscriberID
}

// subnets are the customers' subnets of a Snapshot. Of one prefix that several claim an active
// customer wins, then the lowest id; of prefixes within each other the longest; what a host
// address is bound to by itself stays with that.
type subnets struct {
	claims   []Subnet    // by prefix, and then the one who has it first
	chosen   []Subnet    // of each prefix the first one; by prefix
	disputed bool        // several claim one prefix
	splinter []splinters // which are not chosen, for others have too much in them
	lengths  []int       // in use, longest first
	byLength [33][]subnetKey
	byOwner  []Subnet // chosen, by subscriber

	gateways []netip.Addr // in claims, which are no part of them; sorted
	hosts    *tables      // whose addresses are taken out of parts
	once     sync.Once
	parts    []Subnet
}

// subnetKey finds one of chosen by its first address.
type subnetKey struct {
	first uint32
	at    int32
}

func compareSubnets(a, b Subnet) int {
	return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
}

// newSubnets settles who has which subnet. claims are tidy; subs are sorted. gateways may be some that no claim holds.
func newSubnets(claims []Subnet, gateways []netip.Addr, t *tables, subs []Subscriber) *subnets {
	if len(claims) == 0 {
		return nil
	}
	active := func(id SubscriberID) bool {
		i, ok := findSubscriber(subs, id)
		return ok && subs[i].State == StateActive
	}
	n := &subnets{claims: slices.Clone(claims), gateways: gatewaysIn(gateways, claims), hosts: t}
	slices.SortFunc(n.claims, func(a, b Subnet) int {
		if c := compareSubnets(a, b); c != 0 || a.Subscriber == b.Subscriber {
			return c
		}
		return cmp.Or(compareTrueFirst(active(a.Subscriber), active(b.Subscriber)), cmp.Compare(a.Subscriber, b.Subscriber))
	})
	n.claims = slices.Compact(n.claims)
	var first []Subnet
	for i, c := range n.claims {
		if i > 0 && n.claims[i-1].Prefix == c.Prefix {
			n.disputed = true
			continue
		}
		first = append(first, c)
	}
	n.choose(first)
	if n.splinter = n.tooMany(); len(n.splinter) > 0 {
		n.choose(slices.DeleteFunc(first, func(c Subnet) bool {
			return slices.ContainsFunc(n.splinter, func(s splinters) bool { return s.Subnet == c })
		}))
	}
	return n
}

// choose makes the given subnets, by prefix, those that count.
func (n *subnets) choose(list []Subnet) {
	n.chosen, n.lengths, n.byLength = nil, nil, [33][]subnetKey{}
	for _, c := range list {
		bits := c.Prefix.Bits()
		n.byLength[bits] = append(n.byLength[bits], subnetKey{ipKey(c.Prefix.Addr()), int32(len(n.chosen))})
		n.chosen = append(n.chosen, c)
	}
	for bits := 32; bits >= 0; bits-- {
		if len(n.byLength[bits]) > 0 {
			n.lengths = append(n.lengths, bits)
		}
	}
	n.byOwner = slices.Clone(n.chosen)
	slices.SortFunc(n.byOwner, func(a, b Subnet) int {
		return cmp.Or(cmp.Compare(a.Subscriber, b.Subscriber), compareSubnets(a, b))
	})
}

// maxLetIn bounds the elements by which the source guard lets a customer's subnets in: each part that others leave of them, for each of his
// clients. One row over the network of many others would else be a million of them, more than a kernel reads back in time, and nobody
// would be blocked any more.
const maxLetIn = 1 << 16

// splinters is a subnet of which others leave too many parts for as many clients as its customer has.
type splinters struct {
	Subnet
	parts, clients int
}

// tooMany returns the subnets that are beyond the bound of their customer, whose least cut ones count.
func (n *subnets) tooMany() (out []splinters) {
	for lo, hi := 0, 0; lo < len(n.byOwner); lo = hi {
		id, most := n.byOwner[lo].Subscriber, 0
		for hi = lo; hi < len(n.byOwner) && n.byOwner[hi].Subscriber == id; hi++ {
			most += max(1, 1<<(31-min(31, n.byOwner[hi].Prefix.Bits()))) // every other address another's
		}
		clients := n.hosts.clients(id)
		if most*clients <= maxLetIn {
			continue
		}
		var cut []splinters
		for _, s := range n.byOwner[lo:hi] {
			cut = append(cut, splinters{s, len(n.partsOf(n.find(ipKey(s.Prefix.Addr()), s.Prefix.Bits()))), clients})
		}
		slices.SortStableFunc(cut, func(a, b splinters) int { return cmp.Compare(a.parts, b.parts) })
		sum := 0
		for _, s := range cut {
			if sum += s.parts * clients; sum > maxLetIn {
				out = append(out, s)
			}
		}
	}
	return out
}

// clients returns how many clients a customer may have by his lines, one at least.
func (t *tables) clients(id SubscriberID) int {
	macs, n := map[MAC]struct{}{}, 0
	for l := range find(t, &t.bySubscriber, id).All() {
		switch {
		case !l.MAC.IsZero():
			macs[l.MAC] = struct{}{}
		case l.Vacant():
			n++
		default:
			n += len(l.Addresses)
		}
	}
	return max(1, n+len(macs))
}

// find returns the place in chosen of the longest subnet that holds an address and is no longer than bits; -1: none.
func (n *subnets) find(ip uint32, bits int) int {
	for _, l := range n.lengths {
		if l > bits {
			continue
		}
		first := ip & mask(l)
		if i, ok := slices.BinarySearchFunc(n.byLength[l], first, func(k subnetKey, first uint32) int { return cmp.Compare(k.first, first) }); ok {
			return int(n.byLength[l][i].at)
		}
	}
	return -1
}

func mask(bits int) uint32 { return uint32(^uint64(0) << (32 - bits)) }

// SubnetOf returns the customer's subnet that an address lies in, the longest of several. Whose the address
// itself is tells Owner. It does not allocate.
func (s *Snapshot) SubnetOf(ip netip.Addr) (Subnet, bool) {
	if s == nil || s.nets == nil || !ip.Is4() && !ip.Is4In6() {
		return Subnet{}, false
	}
	i := s.nets.find(ipKey(ip.Unmap()), 32)
	if i < 0 || s.nets.isGateway(ip.Unmap()) {
		return Subnet{}, false
	}
	return s.nets.chosen[i], true
}

// gatewaysIn returns the gateways that some claim holds, in order.
func gatewaysIn(gateways []netip.Addr, claims []Subnet) (in []netip.Addr) {
	for _, g := range gateways {
		if g = g.Unmap(); slices.ContainsFunc(claims, func(c Subnet) bool { return c.Prefix.Contains(g) }) {
			in = append(in, g)
		}
	}
	slices.SortFunc(in, netip.Addr.Compare)
	return slices.Compact(in)
}

// isGateway reports whether an address is cut out of the subnets that hold it.
func (n *subnets) isGateway(ip netip.Addr) bool {
	_, is := slices.BinarySearchFunc(n.gateways, ip, netip.Addr.Compare)
	return is
}

// WithGateways returns a copy in which the given addresses are no part of customers' subnets: what is stored does not tell them.
func (s *Snapshot) WithGateways(gateways []netip.Addr) *Snapshot {
	if s == nil || s.nets == nil || slices.Equal(gatewaysIn(gateways, s.nets.claims), s.nets.gateways) {
		return s
	}
	next := &Snapshot{t: s.t, subs: s.subs, source: s.source, fetchedAt: s.fetchedAt, counts: s.counts, word: s.word}
	next.nets = newSubnets(s.nets.claims, gateways, s.t, s.subs)
	next.countStates()
	return next
}

// OnLink reports whether a customer's subnet lies on a wire of this router or of a relay, and not behind the customer's own router: it
// holds the gateway there.
func (s *Snapshot) OnLink(n Subnet) bool {
	return s != nil && s.nets != nil && slices.ContainsFunc(s.nets.gateways, n.Prefix.Contains)
}

// gateways returns those that are cut out.
func (s *Snapshot) gateways() []netip.Addr {
	if s == nil || s.nets == nil {
		return nil
	}
	return s.nets.gateways
}

// Owner returns whose an address is by the ERP: that of its binding, else that of the subnet that it lies
// in. Zero: nobody's.
func (s *Snapshot) Owner(ip netip.Addr) SubscriberID {
	if l := s.ByIP(ip); l != nil {
		return l.Subscriber
	}
	n, _ := s.SubnetOf(ip)
	return n.Subscriber
}

// Taken reports whether the ERP gives an address to somebody, by itself or within a customer's subnet: no pool
// may give it to anybody.
func (s *Snapshot) Taken(ip netip.Addr) bool {
	if s.ByIP(ip) != nil {
		return true
	}
	_, in := s.SubnetOf(ip)
	return in
}

// TakenIn returns the addresses from first to last that are Taken, ascending. It costs no more than
// there are of them.
func (s *Snapshot) TakenIn(first, last netip.Addr) iter.Seq[netip.Addr] {
	if s == nil || s.nets == nil || !first.Is4() || !last.Is4() {
		return s.BoundIn(first, last)
	}
	return func(yield func(netip.Addr) bool) {
		next, stop := iter.Pull(s.BoundIn(first, last))
		defer stop()
		bound, more := next()
		at, end := uint64(ipKey(first)), uint64(ipKey(last))
		for _, n := range s.nets.chosen {
			lo := uint64(ipKey(n.Prefix.Addr()))
			hi := lo + 1<<(32-n.Prefix.Bits()) - 1
			if hi < at { // before the range, or within the subnet before
				continue
			}
			if lo > end {
				break
			}
			for ; more && uint64(ipKey(bound)) < max(lo, at); bound, more = next() {
				if !yield(bound) {
					return
				}
			}
			for a := max(lo, at); a <= min(hi, end); a++ {
				if ip := addrOf(uint32(a)); !s.nets.isGateway(ip) && !yield(ip) {
					return
				}
			}
			at = hi + 1
			for more && uint64(ipKey(bound)) < at {
				bound, more = next()
			}
		}
		for ; more; bound, more = next() {
			if !yield(bound) {
				return
			}
		}
	}
}

// CustomerSubnets returns the customers' subnets, by prefix. The slice is shared and must not be written to.
func (s *Snapshot) CustomerSubnets() []Subnet {
	if s == nil || s.nets == nil {
		return nil
	}
	return s.nets.chosen
}

// SubnetClaims returns the customers' subnets and those that lost one to another customer: what is stored.
// The slice is shared and must not be written to.
func (s *Snapshot) SubnetClaims() []Subnet {
	if s == nil || s.nets == nil {
		return nil
	}
	return s.nets.claims
}

// SubnetsOf returns the subnets of a customer, by prefix. The slice is shared and must not be written to.
func (s *Snapshot) SubnetsOf(id SubscriberID) []Subnet {
	if s == nil || s.nets == nil {
		return nil
	}
	return ofOwner(s.nets.byOwner, id)
}

// SameSubnets reports whether both snapshots have the same customers' subnets.
func (s *Snapshot) SameSubnets(o *Snapshot) bool {
	return slices.Equal(s.CustomerSubnets(), o.CustomerSubnets()) && slices.Equal(s.gateways(), o.gateways())
}

// SubnetParts returns what of the customers' subnets is theirs, in prefixes, by subscriber: without the addresses
// that are bound to others and without the longer subnets of others. The slice is shared and must not be written to.
func (s *Snapshot) SubnetParts() []Subnet {
	if s == nil || s.nets == nil {
		return nil
	}
	s.nets.once.Do(s.nets.findParts)
	return s.nets.parts
}

// SubnetPartsOf returns those of a customer.
func (s *Snapshot) SubnetPartsOf(id SubscriberID) []Subnet { return ofOwner(s.SubnetParts(), id) }

// ofOwner returns the part of a list by subscriber that is one's.
func ofOwner(list []Subnet, id SubscriberID) []Subnet {
	lo, _ := slices.BinarySearchFunc(list, id, func(n Subnet, id SubscriberID) int { return cmp.Compare(n.Subscriber, id) })
	hi := lo
	for hi < len(list) && list[hi].Subscriber == id {
		hi++
	}
	return list[lo:hi]
}

// partsOf returns what others leave of one of chosen.
func (n *subnets) partsOf(i int) []netip.Prefix {
	sub := n.chosen[i]
	var holes []netip.Prefix
	last := ipKey(sub.Prefix.Addr()) | ^mask(sub.Prefix.Bits())
	for _, in := range n.chosen[i+1:] { // of those that begin in it, it holds all
		if ipKey(in.Prefix.Addr()) > last {
			break
		}
		if in.Subscriber != sub.Subscriber {
			holes = append(holes, in.Prefix)
		}
	}
	for ip, l := range n.hosts.hostsIn(sub.Prefix) {
		if l.Subscriber != sub.Subscriber {
			holes = append(holes, netip.PrefixFrom(ip, 32))
		}
	}
	for _, g := range n.gateways {
		holes = append(holes, netip.PrefixFrom(g, 32))
	}
	return Without(sub.Prefix, holes)
}

func (n *subnets) findParts() {
	for i, sub := range n.chosen {
		for _, p := range n.partsOf(i) {
			n.parts = append(n.parts, Subnet{p, sub.Subscriber})
		}
	}
	slices.SortFunc(n.parts, func(a, b Subnet) int {
		return cmp.Or(cmp.Compare(a.Subscriber, b.Subscriber), compareSubnets(a, b))
	})
	n.parts = slices.Compact(n.parts)
}

// hostsIn returns the host addresses in a prefix with their lines.
func (t *tables) hostsIn(p netip.Prefix) iter.Seq2[netip.Addr, *Line] {
	return func(yield func(netip.Addr, *Line) bool) {
		first := ipKey(p.Addr())
		last := first | ^mask(p.Bits())
		i, _ := slices.BinarySearch(t.byIP.keys, first)
		for ; i < len(t.byIP.keys) && t.byIP.keys[i] <= last; i++ {
			if !yield(addrOf(t.byIP.keys[i]), &t.lines[t.byIP.refs[i]]) {
				return
			}
		}
	}
}

// Without returns an IPv4 prefix without what lies in any of the others, as the fewest prefixes, in order. The
// others may be in any order and overlap.
func Without(p netip.Prefix, others []netip.Prefix) []netip.Prefix {
	var in []netip.Prefix
	for _, o := range others {
		switch {
		case !o.Overlaps(p):
		case o.Bits() <= p.Bits():
			return nil
		default:
			in = append(in, o)
		}
	}
	if len(in) == 0 {
		return []netip.Prefix{p}
	}
	low := netip.PrefixFrom(p.Addr(), p.Bits()+1)
	high := netip.PrefixFrom(addrOf(ipKey(p.Addr())|1<<(31-p.Bits())), p.Bits()+1)
	return append(Without(low, in), Without(high, in)...)
}

// counted is a number with its noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// maxSubnetProblems bounds how many conflicts of one subnet are told one by one.
const maxSubnetProblems = 8

// report says where subnets and what else the ERP has disagree, and what comes of it.
func (n *subnets) report(in *Input, p *problems) {
	if n == nil {
		return
	}
	conflict := func(s Subnet, ip netip.Addr, format string, args ...any) {
		p.add(Problem{Kind: ProblemSubnetConflict, Subscriber: s.Subscriber, IP: ip, Prefix: s.Prefix, Detail: fmt.Sprintf("subnet %s: ", s.Prefix) + fmt.Sprintf(format, args...)})
	}
	for _, s := range n.splinter {
		p.add(Problem{Kind: ProblemBadSubnet, Subscriber: s.Subscriber, IP: s.Prefix.Addr(), Prefix: s.Prefix, Detail: fmt.Sprintf(
			"customer's subnet %s is cut into %s by what others have in it, which for the %s of this customer is more than the source guard takes; it is neither blocked nor let in, correct it in the ERP",
			s.Prefix, counted(s.parts, "part"), counted(s.clients, "client"))})
	}
	var has Subnet
	for i, c := range n.claims {
		if i > 0 && c.Prefix == has.Prefix {
			conflict(c, c.Prefix.Addr(), "customer %d has it too, and keeps it", has.Subscriber)
			continue
		}
		has = c
	}
	for _, s := range n.chosen {
		if i := n.find(ipKey(s.Prefix.Addr()), s.Prefix.Bits()-1); i >= 0 && n.chosen[i].Subscriber != s.Subscriber {
			conflict(s, s.Prefix.Addr(), "lies in %s of customer %d; the longer one counts", n.chosen[i].Prefix, n.chosen[i].Subscriber)
		}
		told := 0
		for ip, l := range n.hosts.hostsIn(s.Prefix) {
			if l.Subscriber == s.Subscriber {
				continue
			}
			if told++; told > maxSubnetProblems {
				continue
			}
			conflict(s, ip, "%s in it is bound to customer %d, and stays that one's", ip, l.Subscriber)
		}
		if told > maxSubnetProblems {
			conflict(s, s.Prefix.Addr(), "%d addresses in it are bound to other customers in all", told)
		}
		for _, r := range in.Pools {
			if a := r.From; s.Prefix.Contains(a) || a.Less(s.Prefix.Addr()) && !r.To.Less(s.Prefix.Addr()) {
				conflict(s, s.Prefix.Addr(), "overlaps the pool %s-%s, which gives none of its addresses", r.From, r.To)
			}
		}
		for _, r := range in.Relays {
			if r.Overlaps(s.Prefix) && !within(s.Prefix, in.Subnets) { // a network of customers is listed for the gateway in it
				conflict(s, s.Prefix.Addr(), "lies in %s of dhcp.relays; a relay in it is believed only if it is listed there as one address", r)
			}
		}
	}
}
