package provision

import (
	"cmp"
	"slices"
)

// maxVLAN is the highest VLAN id (IEEE 802.1Q; 0 and 4095 are reserved).
const maxVLAN = 4094

// vlanRows are the rows of one VLAN.
type vlanRows struct {
	vlan   uint16
	shared bool       // several subscribers: rows and seats are empty
	rows   []*Binding // by IP
	seats  []*Seat
}

// ByVLAN gives the rows that the ERP has in a VLAN, sorted by IP. Where several
// subscribers share it nobody can be told by it: shared is true and there are no
// rows. VLANs outside 1 to 4094 have none.
func (s *Snapshot) ByVLAN(vlan uint16) (rows []*Binding, shared bool) {
	if v := s.vlanAt(vlan); v != nil {
		return v.rows, v.shared
	}
	return nil, false
}

func (s *Snapshot) vlanAt(vlan uint16) *vlanRows {
	if s == nil || vlan == 0 {
		return nil
	}
	i, ok := slices.BinarySearchFunc(s.t.vlans, vlan, func(v vlanRows, vlan uint16) int { return cmp.Compare(v.vlan, vlan) })
	if !ok {
		return nil
	}
	return &s.t.vlans[i]
}

// indexVLANs makes the look-up by VLAN. Of a shared one, which may hold every
// subscriber there is, no rows are kept.
func (t *tables) indexVLANs() {
	var place [maxVLAN + 1]int32                         // in t.vlans, from 1
	at := func(vlan uint16, of SubscriberID) *vlanRows { // nil: not told, or shared
		if vlan == 0 || vlan > maxVLAN {
			return nil
		}
		if place[vlan] == 0 {
			t.vlans = append(t.vlans, vlanRows{vlan: vlan})
			place[vlan] = int32(len(t.vlans))
		}
		v := &t.vlans[place[vlan]-1]
		if len(v.rows) > 0 && v.rows[0].Subscriber != of || len(v.seats) > 0 && v.seats[0].Subscriber != of {
			v.shared, v.rows, v.seats = true, nil, nil
		}
		if v.shared {
			return nil
		}
		return v
	}
	for _, r := range t.byIP.rows {
		if v := at(r.VLAN, r.Subscriber); v != nil {
			v.rows = append(v.rows, r)
		}
	}
	for i := range t.seats.rows {
		s := &t.seats.rows[i]
		if v := at(s.VLAN, s.Subscriber); v != nil {
			v.seats = append(v.seats, s)
		}
	}
	slices.SortFunc(t.vlans, func(a, b vlanRows) int { return cmp.Compare(a.vlan, b.vlan) })
}
