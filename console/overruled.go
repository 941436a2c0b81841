package console

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// OverruledStatus tells of the live leases for whose addresses somebody wrote another MAC into the ERP since.
type OverruledStatus struct {
	Count int             `json:"count"`
	First []OverruledView `json:"first,omitempty"` // by address, 20 at most
}

// OverruledView is one of them.
type OverruledView struct {
	IP         netip.Addr             `json:"ip"`
	Subscriber provision.SubscriberID `json:"subscriber"`
	MAC        provision.MAC          `json:"mac"`     // of the lease
	ERPMAC     provision.MAC          `json:"erp_mac"` // newer
	Answered   bool                   `json:"answered"`
	Text       string                 `json:"text"`
}

func (d *Deps) overruled(now time.Time) OverruledStatus {
	s := d.Syncer.Current()
	n, first := d.Leases.Overruled(s, now, statusEntries)
	st := OverruledStatus{Count: n}
	for i := range first {
		if v := d.viewOverruled(&first[i], s); v != nil {
			st.First = append(st.First, *v)
		}
	}
	return st
}

// viewOverruled says what comes of a lease for which the ERP has another MAC by its operator's word; nil: it has none.
func (d *Deps) viewOverruled(rec *lease.Record, s *provision.Snapshot) *OverruledView {
	mac, yes := rec.Overruled(s)
	if !yes {
		return nil
	}
	v := &OverruledView{IP: rec.IP, Subscriber: rec.Subscriber, MAC: rec.MAC, ERPMAC: mac, Answered: d.DHCP != nil && d.DHCP.Spares(rec)}
	v.Text = fmt.Sprintf("The ERP got the MAC %s for %s, which is newer than the lease of %s: ", mac, rec.IP, rec.MAC)
	if v.Answered {
		v.Text += fmt.Sprintf("that one is answered on its line, but not reported any more, until %s appears there.", mac)
	} else {
		v.Text += fmt.Sprintf("that one is refused when it renews, and %s gets the address as soon as it asks.", mac)
	}
	return v
}
