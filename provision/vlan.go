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
	shared bool       // several subscribers: rows is empty
	rows   []*Binding // by IP
}

// ByVLAN gives the rows that the ERP has in a VLAN, sorted by IP. Where several
// subscribers share it nobody can be told by it: shared is true and there are no
// rows. VLANs outside 1 to 4094 have none.
func (s *Snapshot) ByVLAN(vlan uint16) (rows []*Binding, shared bool) {
	if s == nil || vlan == 0 {
		return nil, false
	}
	i, ok := slices.BinarySearchFunc(s.t.vlans, vlan, func(v vlanRows, vlan uint16) int { return cmp.Compare(v.vlan, vlan) })
	if !ok {
		return nil, false
	}
	return s.t.vlans[i].rows, s.t.vlans[i].shared
}

// indexVLANs makes the look-up by VLAN. Of a shared one, which may hold every
// subscriber there is, no rows are kept.
func (t *tables) indexVLANs() {
	var place [maxVLAN + 1]int32 // in t.vlans, from 1
	for _, r := range t.byIP.rows {
		if r.VLAN == 0 || r.VLAN > maxVLAN {
			continue
		}
		if place[r.VLAN] == 0 {
			t.vlans = append(t.vlans, vlanRows{vlan: r.VLAN})
			place[r.VLAN] = int32(len(t.vlans))
		}
		v := &t.vlans[place[r.VLAN]-1]
		switch {
		case v.shared:
		case len(v.rows) > 0 && v.rows[0].Subscriber != r.Subscriber:
			v.shared, v.rows = true, nil
		default:
			v.rows = append(v.rows, r)
		}
	}
	slices.SortFunc(t.vlans, func(a, b vlanRows) int { return cmp.Compare(a.vlan, b.vlan) })
}
