package outbox

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
)

// Foreign is a report that was dropped since its MAC is another client's.
type Foreign struct {
	provision.MACReport
	DroppedAt time.Time              `json:"dropped_at"`        // last: it comes again with each ACK
	Owner     provision.SubscriberID `json:"owner,omitempty"`   // whose the MAC is; zero: a guest's
	OwnerIP   netip.Addr             `json:"owner_ip,omitzero"` // the address that this one has
}

// Reason says why the report was dropped.
func (x *Foreign) Reason() string {
	who := "a guest"
	if x.Owner != 0 {
		who = fmt.Sprintf("customer %d", x.Owner)
	}
	if x.OwnerIP.IsValid() {
		who += fmt.Sprintf(" (%s)", x.OwnerIP)
	}
	return fmt.Sprintf("the MAC is that of %s, who is found by it", who)
}

// foreign drops a report if its MAC is another client's, and reports whether it did. The log has each address and MAC once while it is in the list.
func (o *Outbox) foreign(e *entry) bool {
	if o.opts.Foreign == nil {
		return false
	}
	owner, ip, foreign := o.opts.Foreign(e.report)
	if !foreign || !o.current(e) {
		return false
	}
	x := Foreign{MACReport: e.report, DroppedAt: time.Now(), Owner: owner, OwnerIP: ip}
	o.mu.Lock()
	known := slices.IndexFunc(o.foreigns, func(f Foreign) bool { return f.IP == x.IP && f.MAC == x.MAC })
	if known >= 0 {
		o.foreigns = slices.Delete(o.foreigns, known, known+1)
	}
	o.foreigns = append(o.foreigns, x)
	if n := len(o.foreigns) - maxRefusals; n > 0 {
		o.foreigns = append(o.foreigns[:0], o.foreigns[n:]...)
	}
	o.mu.Unlock()
	if known < 0 {
		o.log.Warn("mac report dropped: the MAC is another client's, who is found by it", "ip", x.IP, "mac", x.MAC, "subscriber", x.Subscriber,
			"owner", owner, "owner_ip", ip, "source", x.Packet.Source, "interface", x.Packet.Interface, "relay", x.Packet.Relay, "option82", x.Packet.Option82)
	}
	o.finish(e, ResultForeign)
	return true
}
