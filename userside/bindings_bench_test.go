package userside

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// manyRows returns an answer of n rows in shape A.
func manyRows(n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"result":"OK","data":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"customer_id":%d,"ip":"%d","mac":"00005e%06x","device_id":%d,"device_ip":"192.0.2.%d","port":%d}`,
			1000+i, 0x64400000+i, i, 1+i/48, 1+i/48%250, 1+i%48)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

// plainRow is a row for decoders that know one shape and strict types only:
// what they would have to do beside that to be tolerant is not counted.
type plainRow struct {
	Customer int64  `json:"customer_id"`
	IP       string `json:"ip"`
	MAC      string `json:"mac"`
	Device   int64  `json:"device_id"`
	DeviceIP string `json:"device_ip"`
	Port     uint32 `json:"port"`
}

func (p *plainRow) row() (r BindingRow, err error) {
	r = BindingRow{Customer: p.Customer, Device: p.Device, Port: p.Port}
	if r.IP, err = ParseIP(p.IP); err != nil {
		return r, err
	}
	if r.DeviceIP, err = ParseIP(p.DeviceIP); err != nil {
		return r, err
	}
	r.MAC, err = ParseMAC(p.MAC)
	return r, err
}

// decoders are the ways to read the same rows. The file with the tag
// goexperiment.jsonv2 adds those of encoding/json/v2.
func decoders() map[string]func(io.Reader) ([]BindingRow, error) {
	out := map[string]func(io.Reader) ([]BindingRow, error){
		"own":            decodeOwn,
		"json_v1_stream": decodeV1Stream,
		"json_v1_whole":  decodeV1Whole,
	}
	for name, f := range moreDecoders() {
		out[name] = f
	}
	return out
}

func decodeOwn(r io.Reader) ([]BindingRow, error) {
	var d bindingDecoder
	_, err := readAnswer(newScanner(r), sink{member: d.member, descend: true})
	d.finish()
	return d.out.bindings().Rows, err
}

func decodeV1Stream(r io.Reader) ([]BindingRow, error) {
	d := json.NewDecoder(r)
	for range 5 { // {, "result", "OK", "data", [
		if _, err := d.Token(); err != nil {
			return nil, err
		}
	}
	var out []BindingRow
	for d.More() {
		var p plainRow
		if err := d.Decode(&p); err != nil {
			return nil, err
		}
		row, err := p.row()
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, nil
}

func decodeV1Whole(r io.Reader) ([]BindingRow, error) {
	doc, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var a struct {
		Data []plainRow `json:"data"`
	}
	if err := json.Unmarshal(doc, &a); err != nil {
		return nil, err
	}
	return rowsOf(a.Data)
}

func rowsOf(in []plainRow) ([]BindingRow, error) {
	out := make([]BindingRow, 0, len(in))
	for i := range in {
		row, err := in[i].row()
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, nil
}

// BenchmarkDecodeBindings reads 100,000 rows (10 MB) in each way. peak/kept is the
// most heap in use while reading, over that of the rows it gives, both beyond
// what was there before; garbage not yet collected counts.
func BenchmarkDecodeBindings(b *testing.B) {
	doc := manyRows(100_000)
	for name, decode := range decoders() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			for b.Loop() {
				rows, err := decode(bytes.NewReader(doc))
				require.NoError(b, err)
				require.Len(b, rows, 100_000)
			}
			peak, kept := heapOf(b, doc, decode)
			b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
			b.ReportMetric(float64(peak)/float64(kept), "peak/kept")
		})
	}
}

// heapOf measures one decoding: the heap is looked at each time that text is taken.
func heapOf(tb testing.TB, doc []byte, decode func(io.Reader) ([]BindingRow, error)) (peak, kept uint64) {
	tb.Helper()
	var m runtime.MemStats
	heap := func() uint64 { runtime.ReadMemStats(&m); return m.HeapAlloc }
	runtime.GC()
	before := heap()
	r := bytes.NewReader(doc)
	rows, err := decode(readerFunc(func(p []byte) (int, error) {
		peak = max(peak, heap()-min(heap(), before))
		return r.Read(p)
	}))
	require.NoError(tb, err)
	peak = max(peak, heap()-before)
	runtime.GC()
	kept = heap() - before
	runtime.KeepAlive(rows)
	return peak, kept
}

// The decoders agree, or their times could not be compared.
func TestDecodersAgree(t *testing.T) {
	doc := manyRows(500)
	want, err := decodeOwn(bytes.NewReader(doc))
	require.NoError(t, err)
	require.Len(t, want, 500)
	for name, decode := range decoders() {
		got, err := decode(bytes.NewReader(doc))
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
	}
}
