package provision

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// home is what a subscriber has already, or claims: where, and an address of it.
type home struct {
	line *Line
	ip   netip.Addr
}

// chooseVacant adds to l the vacant lines of subscribers who have no address there,
// each with its Owner, and those that have subnets only.
func (t *tables) chooseVacant(c *claims, l *layout, p *problems) {
	var nets map[uint32]uint32 // rows with subnets only, and their lines
	for i := range c.routed {
		if r := &c.routed[i]; r.alone {
			if nets == nil {
				nets = make(map[uint32]uint32)
			}
			if _, twice := nets[r.row]; !twice {
				nets[r.row] = 0
				c.vacant = append(c.vacant, r.row)
			}
		}
	}
	slices.SortFunc(c.vacant, func(a, b uint32) int {
		_, first := nets[a]
		_, second := nets[b]
		return cmp.Or(compareVacant(&c.rows[a], &c.rows[b]), compareTrueFirst(first, second))
	})
	disputed := make(map[SubscriberID][]home, len(t.contested))
	for i := range t.contested {
		if r := &t.contested[i]; !r.Vacant() {
			disputed[r.Subscriber] = append(disputed[r.Subscriber], home{r, r.first()})
		}
	}
	var homes []home
	for lo := 0; lo < len(c.vacant); {
		id, hi := c.rows[c.vacant[lo]].Subscriber, lo+1
		for hi < len(c.vacant) && c.rows[c.vacant[hi]].Subscriber == id {
			hi++
		}
		homes = homes[:0]
		i, _ := slices.BinarySearchFunc(l.bySubscriber, uint64(id), func(r rank, id uint64) int { return cmp.Compare(r.key, id) })
		for ; i < len(l.bySubscriber) && l.bySubscriber[i].key == uint64(id); i++ {
			n := l.bySubscriber[i].line
			homes = append(homes, home{&c.rows[l.rows[n]], l.firsts[n]})
		}
		t.vacantOf(c, l, c.vacant[lo:hi], append(homes, disputed[id]...), nets, p)
		lo = hi
	}
	for i := range c.routed {
		if r := &c.routed[i]; r.alone {
			l.ofNet[i] = nets[r.row]
		}
	}
}

// vacantOf adds the vacant lines of one subscriber.
func (t *tables) vacantOf(c *claims, l *layout, rows []uint32, homes []home, nets map[uint32]uint32, p *problems) {
	open := l.open[:0]
	for i, row := range rows {
		r := &c.rows[row]
		_, net := nets[row]
		if !net && i > 0 && compareLines(r, &c.rows[rows[i-1]]) == 0 {
			if _, same := nets[rows[i-1]]; same {
				continue
			}
		}
		why := spare(c, rows, i, homes)
		switch {
		case net:
			nets[row] = uint32(len(l.rows))
		case why != "":
			p.add(Problem{Kind: ProblemNoAddress, Subscriber: r.Subscriber, MAC: r.MAC, Device: r.Device, Port: r.Port, Detail: why})
			continue
		}
		l.rows = append(l.rows, row)
		if t.kept && why == "" {
			open = append(open, row)
		}
	}
	for _, row := range open {
		r := &c.rows[row]
		several := slices.ContainsFunc(open, func(o uint32) bool { return o != row && sameExactPort(r, &c.rows[o]) })
		r.Owner = vacantOwner(r, several)
	}
	t.vacant, l.open = t.vacant+len(open), open
}

// spare says why the vacant row at place i of a subscriber's is not one; empty if it is. A
// subscriber who has an address gets a second one only on another port: the row is about that
// port then and not a half of the first.
func spare(c *claims, rows []uint32, i int, homes []home) string {
	r := &c.rows[rows[i]]
	for _, row := range rows[:i] {
		if b := &c.rows[row]; sameExactPort(r, b) && (r.MAC == b.MAC || r.MAC.IsZero() && r.HasPort()) {
			return "the customer has this row without an address twice"
		}
	}
	if !r.HasPort() && !r.MAC.IsZero() {
		for _, row := range rows {
			if b := &c.rows[row]; b.HasPort() && b.MAC == r.MAC {
				return "the customer has the MAC on a port too"
			}
		}
	}
	for _, h := range homes {
		if !r.HasPort() || !h.line.HasPort() || r.SamePort(h.line) {
			return fmt.Sprintf("row has no IP, and the customer has %s", h.ip)
		}
	}
	return ""
}

// vacantOwner is what pools know a vacant line by. It stays the same while the subscriber
// keeps the port, whatever router is there, and is the MAC of no client: it is a group
// address. It must stay as it is: stored leases have it.
func vacantOwner(l *Line, byMAC bool) Owner {
	b := make([]byte, 0, 64)
	b = binary.BigEndian.AppendUint64(b, uint64(l.Subscriber))
	if l.HasPort() {
		b = binary.BigEndian.AppendUint64(b, uint64(l.Device))
		b = binary.BigEndian.AppendUint32(b, l.Port)
		if l.Port == 0 {
			b = append(b, l.PortName...)
		}
	}
	if byMAC || !l.HasPort() {
		b = append(b, l.MAC[:]...)
	}
	if !l.HasPort() && l.MAC.IsZero() {
		b = binary.BigEndian.AppendUint16(b, l.VLAN)
	}
	sum := sha256.Sum256(b)
	key := MAC(sum[:6])
	key[0] |= 3 // a group address, locally administered
	return key.Owner()
}
