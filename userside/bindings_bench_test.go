package userside

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// manyRows gives an answer of n rows in shape A.
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

func BenchmarkDecodeBindings(b *testing.B) {
	doc := manyRows(100_000)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		var d bindingDecoder
		_, err := readAnswer(newScanner(bytes.NewReader(doc)), sink{member: d.member, descend: true})
		require.NoError(b, err)
		d.finish()
		require.Len(b, d.out.Rows, 100_000)
	}
}
