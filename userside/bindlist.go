package userside

import (
	"encoding/binary"
	"iter"
	"net/netip"
)

// BindingList is the answer of CustomerBindingList. The rows are kept in 36
// bytes each, without pointers: switches and port names are kept once.
type BindingList struct {
	Empty   int // rows that were understood and have neither address nor MAC
	Defects Defects

	// Full chunks but for the last: one slice that grows copies its rows time and
	// again, and holds the old ones beside the new ones each time.
	chunks    [][]packedRow
	devices   []rowDevice
	deviceAt  map[rowDevice]uint32
	portNames []string
	nameAt    map[string]uint32
}

// packedRow is a BindingRow. An address of zero is none, as none can be 0.0.0.0.
type packedRow struct {
	customer int64
	ip       uint32
	port     uint32
	device   uint32 // in devices
	portName uint32 // in portNames
	mac      MAC
	vlan     uint16
}

// rowDevice is what a row says about its switch.
type rowDevice struct {
	id   int64
	ip   netip.Addr
	mac  MAC
	name string
}

const rowChunk = 2048

// Len counts the rows.
func (l *BindingList) Len() int {
	if len(l.chunks) == 0 {
		return 0
	}
	last := len(l.chunks) - 1
	return last*rowChunk + len(l.chunks[last])
}

// All returns the rows in the order of the answer.
func (l *BindingList) All() iter.Seq[BindingRow] {
	return func(yield func(BindingRow) bool) {
		for _, chunk := range l.chunks {
			for i := range chunk {
				if !yield(l.unpack(&chunk[i])) {
					return
				}
			}
		}
	}
}

func (l *BindingList) bindings() *Bindings {
	out := &Bindings{Empty: l.Empty, Defects: l.Defects}
	if n := l.Len(); n > 0 {
		out.Rows = make([]BindingRow, 0, n)
	}
	for r := range l.All() {
		out.Rows = append(out.Rows, r)
	}
	return out
}

func (l *BindingList) add(r *BindingRow) {
	n := l.Len()
	if n%rowChunk == 0 {
		size := rowChunk
		if n == 0 {
			size = 0 // a short answer needs no whole chunk
		}
		l.chunks = append(l.chunks, make([]packedRow, 0, size))
	}
	last := &l.chunks[len(l.chunks)-1]
	*last = append(*last, l.pack(r))
}

func (l *BindingList) at(i int) BindingRow { return l.unpack(&l.chunks[i/rowChunk][i%rowChunk]) }

func (l *BindingList) set(i int, r *BindingRow) { l.chunks[i/rowChunk][i%rowChunk] = l.pack(r) }

func (l *BindingList) pack(r *BindingRow) packedRow {
	p := packedRow{customer: r.Customer, port: r.Port, mac: r.MAC, vlan: r.VLAN}
	if r.IP.IsValid() {
		a := r.IP.As4()
		p.ip = binary.BigEndian.Uint32(a[:])
	}
	d := rowDevice{r.Device, r.DeviceIP, r.DeviceMAC, r.DeviceName}
	p.device = keepOnce(&l.devices, &l.deviceAt, d)
	p.portName = keepOnce(&l.portNames, &l.nameAt, r.PortName)
	return p
}

// keepOnce returns the place of v in list, which at knows, and appends it if it is new.
func keepOnce[T comparable](list *[]T, at *map[T]uint32, v T) uint32 {
	if n := len(*list); n > 0 && (*list)[n-1] == v {
		return uint32(n - 1) // rows of one switch mostly stand together
	}
	i, ok := (*at)[v]
	if !ok {
		if *at == nil {
			*at = make(map[T]uint32)
		}
		i = uint32(len(*list))
		(*at)[v] = i
		*list = append(*list, v)
	}
	return i
}

func (l *BindingList) unpack(p *packedRow) BindingRow {
	d := &l.devices[p.device]
	r := BindingRow{
		Customer: p.customer, MAC: p.mac, Device: d.id, DeviceIP: d.ip, DeviceMAC: d.mac, DeviceName: d.name,
		Port: p.port, PortName: l.portNames[p.portName], VLAN: p.vlan,
	}
	if p.ip != 0 {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], p.ip)
		r.IP = netip.AddrFrom4(a)
	}
	return r
}
