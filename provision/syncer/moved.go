package syncer

import (
	"net/netip"
	"slices"

	"github.com/usher-agent/usher/provision"
)

// A client is found by its port, by number or name, by its VLAN and by its MAC (docs/dhcp-matching.md). Each of them counts, for which one a
// network goes by is not known here, and whichever way the ERP was read.

// comparison is of two snapshots.
type comparison struct {
	old, candidate *provision.Snapshot
	own            ownMAC
}

// moved reports whether an address of before is gone, or whoever has it is not found any more by what the line said, or is found by what
// is another's; if there is no address, whether one of the lines is. after are the lines of the same subscriber in candidate.
func (x *comparison) moved(before, after provision.Lines) bool {
	for i := range before.Len() {
		l := before.At(i)
		if l.Vacant() {
			if before.At(0).Vacant() && x.lostLine(l, after, after.Len() < before.Len()) {
				return true
			}
			continue
		}
		for ip := range l.Hosts4() {
			now := after.At(0) // most have one line
			if now.Addresses[0].Prefix.Addr() != ip {
				now = x.candidate.ByIP(ip)
			}
			if now == nil || now.Subscriber != l.Subscriber || x.otherPort(l, now) || x.otherVLAN(l, now) || x.otherMAC(ip, l, now) {
				return true
			}
		}
	}
	return false
}

// lostLine reports whether none of after is a vacant line: on the same port or, without one, with the same MAC or a new one in its place.
// Who has the port may change. Where there are fewer lines than before, no MAC stands in for another.
func (x *comparison) lostLine(l *provision.Line, after provision.Lines, fewer bool) bool {
	if !l.HasPort() && l.MAC.IsZero() && l.VLAN == 0 || l.HasPort() && x.old.DevicesUnread() && !x.candidate.DevicesUnread() {
		return false // with a subnet alone, or on a switch that was made of rows
	}
	for now := range after.All() {
		if !x.otherPort(l, now) && !x.otherVLAN(l, now) && (l.HasPort() || l.MAC == now.MAC || (l.MAC.IsZero() || !fewer) && x.newMAC(l, now)) {
			return false
		}
	}
	return true
}

// newMAC reports whether a vacant line has its first MAC, or one in place of another that this subscriber had on no line before, and it is
// no other's.
func (x *comparison) newMAC(was, now *provision.Line) bool {
	return (was.MAC.IsZero() || x.old.ByMAC(now.MAC).Len() == 0) && !x.otherMAC(netip.Addr{}, was, now)
}

// otherPort reports whether a line has lost its switch, or the number or name of its port, or has one at last that is another's. To gain
// a port, or one of the two, is no change else, nor are the true ports in place of those of switches that were made of rows. What was made
// is the same as long as there is no list, and one that still lacks some brings the true ones of the others.
func (x *comparison) otherPort(was, now *provision.Line) bool {
	if x.old.DevicesUnread() && (!x.candidate.DevicesUnread() || was.Device.Made() && now.HasPort() && !now.Device.Made()) {
		return false
	}
	if was.HasPort() {
		return !now.KeepsPort(was)
	}
	if !now.HasPort() {
		return false
	}
	return ofOneOther(onPort(x.old, now), now.Subscriber) && !moreThanTwo(onPort(x.candidate, now))
}

// onPort returns the lines on the port of another.
func onPort(s *provision.Snapshot, l *provision.Line) provision.Lines {
	if there := s.ByPort(l.Device, l.Port); there.Len() > 0 {
		return there
	}
	return s.ByPortName(l.Device, []byte(l.PortName))
}

// otherVLAN reports whether a line has lost the VLAN by which its subscriber was found, or has one by which another was. One that several
// share finds nobody; two that do may be a mistake, but where it is more somebody enters many.
func (x *comparison) otherVLAN(was, now *provision.Line) bool {
	if was.VLAN == now.VLAN {
		return false
	}
	lost, _ := x.old.ByVLAN(was.VLAN)
	got, _ := x.old.ByVLAN(now.VLAN)
	return lost.Len() > 0 || ofOneOther(got, now.Subscriber) && x.candidate.InVLAN(now.VLAN) <= 2
}

// otherMAC reports whether an address has no MAC any more, or another subscriber's, who had it in old or has it in candidate, or one that
// nobody knows in place of another. What this agent saw there itself is right whoever has it in the lists, and a first MAC is no change.
// Without an address, what it saw anywhere is no surprise, but may be another's.
func (x *comparison) otherMAC(ip netip.Addr, was, now *provision.Line) bool {
	switch {
	case was.MAC == now.MAC:
		return false
	case now.MAC.IsZero():
		return true
	case ip.IsValid() && x.own != nil && x.own(ip, now.MAC):
		return false
	case othersHave(x.old.ByMAC(now.MAC), now.Subscriber), othersHave(x.candidate.ByMAC(now.MAC), now.Subscriber):
		return true
	}
	return x.own != nil && !was.MAC.IsZero() && !x.own(ip, now.MAC)
}

// othersHave reports whether one of the lines is not of a subscriber.
func othersHave(lines provision.Lines, id provision.SubscriberID) bool {
	for l := range lines.All() {
		if l.Subscriber != id {
			return true
		}
	}
	return false
}

// moreThanTwo reports whether lines are of more than two subscribers.
func moreThanTwo(lines provision.Lines) bool {
	var two [2]provision.SubscriberID
	n := 0
	for l := range lines.All() {
		if !slices.Contains(two[:n], l.Subscriber) {
			if n == len(two) {
				return true
			}
			two[n] = l.Subscriber
			n++
		}
	}
	return false
}

// ofOneOther reports whether lines are all of one subscriber, who is another: what several share, such as a port of fibre, finds nobody
// by itself, and one more does no harm.
func ofOneOther(lines provision.Lines, id provision.SubscriberID) bool {
	return lines.Len() > 0 && lines.At(0).Subscriber != id && !othersHave(lines, lines.At(0).Subscriber)
}
