package probe

import (
	"encoding/binary"
	"io"
)

// WritePcap writes packets as a capture file that tcpdump and Wireshark read:
// microseconds, IP datagrams without link layer (LINKTYPE_RAW).
func WritePcap(w io.Writer, packets []Packet) error {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xa1b2c3d4)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)
	b = le.AppendUint32(b, 1<<16)
	b = le.AppendUint32(b, 101)
	for i := range packets {
		p := &packets[i]
		ip := p.appendIP(nil)
		b = le.AppendUint32(b, uint32(p.Time.Unix()))
		b = le.AppendUint32(b, uint32(p.Time.Nanosecond()/1000))
		b = le.AppendUint32(b, uint32(len(ip)))
		b = le.AppendUint32(b, uint32(len(ip)))
		b = append(b, ip...)
	}
	_, err := w.Write(b)
	return err
}
