package provision_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

func buildRaw(rows []rawRow, in provision.Input, keep bool) (*provision.Snapshot, []provision.Problem) {
	in.KeepSeats = keep
	for _, r := range rows {
		in.Bindings = append(in.Bindings, provision.Binding{Subscriber: r.subscriber, IP: r.ip, MAC: r.mac, Device: r.device, Port: r.port, PortName: r.name, VLAN: r.vlan})
	}
	return provision.Build(in)
}

func stored(t *testing.T, s *provision.Snapshot) []byte {
	var b bytes.Buffer
	require.NoError(t, provision.Encode(&b, s))
	return b.Bytes()
}

func keepsVacant(s *provision.Snapshot) bool { return s.KeepsSeats() }
func onlyVacant(s *provision.Snapshot) int   { return s.WithSeatsOnly() }

func rowText(r *provision.Binding) string {
	return fmt.Sprintf("{%d %s %s %d/%d/%s v%d}", r.Subscriber, r.IP, r.MAC, r.Device, r.Port, r.PortName, r.VLAN)
}

func seatText(s *provision.Seat) string {
	return fmt.Sprintf("{%d %s %d/%d/%s v%d %s}", s.Subscriber, s.MAC, s.Device, s.Port, s.PortName, s.VLAN, s.Key)
}

func texts[T any](list []T, text func(T) string) (out []string) {
	for _, x := range list {
		out = append(out, text(x))
	}
	return out
}

func values[T any](list []T) (out []*T) {
	for i := range list {
		out = append(out, &list[i])
	}
	return out
}

func allRows(s *provision.Snapshot) []string       { return texts(values(s.Bindings()), rowText) }
func allVacant(s *provision.Snapshot) []string     { return texts(values(s.Seats()), seatText) }
func contestedRows(s *provision.Snapshot) []string { return texts(values(s.Contested()), rowText) }

func rowOf(s *provision.Snapshot, ip netip.Addr) string {
	if r := s.ByIP(ip); r != nil {
		return rowText(r)
	}
	return "none"
}

func rowsByMAC(s *provision.Snapshot, m provision.MAC) (rows, vacant []string) {
	return texts(s.ByMAC(m), rowText), texts(s.SeatsByMAC(m), seatText)
}

func rowsByPort(s *provision.Snapshot, d provision.DeviceID, p uint32) (rows, vacant []string) {
	return texts(values(s.ByPort(d, p)), rowText), texts(s.SeatsByPort(d, p), seatText)
}

func rowsByName(s *provision.Snapshot, d provision.DeviceID, name string) (rows, vacant []string) {
	return texts(values(s.ByPortName(d, []byte(name))), rowText), texts(s.SeatsByPortName(d, []byte(name)), seatText)
}

func rowsByVLAN(s *provision.Snapshot, v uint16) (rows, vacant []string, shared bool) {
	list, shared := s.ByVLAN(v)
	seats, _ := s.SeatsByVLAN(v)
	return texts(list, rowText), texts(seats, seatText), shared
}

func rowsBySubscriber(s *provision.Snapshot, id provision.SubscriberID) (rows, vacant []string) {
	seats := s.SeatsOf(id)
	vacant = texts(values(seats), seatText)
	for i := range seats {
		vacant = append(vacant, seatText(s.SeatByKey(id, seats[i].Key)))
	}
	return texts(s.BySubscriber(id), rowText), vacant
}

