package userside

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Keys that count the members of a list are nobody's id.
func TestCountsAreNoIDs(t *testing.T) {
	link := `[{"object_type":"switch","object_id":6918,"interface":5}]`
	t.Run("devices", func(t *testing.T) {
		for data, want := range map[string][]int64{
			`{"6918":{"name":"a"},"6919":{"name":"b"}}`:                  {6918, 6919},
			`{"0":{"id":6918},"1":{"name":"b"},"2":{"id":6919}}`:         {6918, 6919},
			`{"3":{"name":"b"},"4":{"id":6918},"5":{"name":"c"}}`:        {6918},
			`{"0":{"name":"a"},"1":{"id":1,"name":"b"},"2":{"id":6919}}`: {1, 6919},
		} {
			got, err := clientOf(t, `{"result":"OK","data":`+data+`}`).Devices(ctx, DeviceFilter{})
			require.NoError(t, err)
			var ids []int64
			for _, d := range got.Devices {
				ids = append(ids, d.ID)
			}
			require.Equal(t, want, ids, data)
			require.Equal(t, len(want) != 2 || want[0] == 1 || data[2] == '0', got.Defects.Count > 0, data)
		}
	})
	t.Run("customers", func(t *testing.T) {
		got, err := clientOf(t, `{"result":"OK","data":{"0":{"id":1001},"1":{"login":"b"},"1003":{"login":"c"}}}`).Customers(ctx, []int64{1001, 1002, 1003})
		require.NoError(t, err)
		require.Len(t, got.Customers, 2)
		require.Equal(t, []int64{1001, 1003}, []int64{got.Customers[0].ID, got.Customers[1].ID})
		require.Equal(t, []int64{1002}, got.Missing)
		require.Equal(t, 1, got.Defects.Count)
	})
	t.Run("cabling", func(t *testing.T) {
		for _, data := range []string{`[` + link + `,` + link + `]`, `{"0":` + link + `,"1":` + link + `}`} {
			_, err := clientOf(t, `{"result":"OK","data":`+data+`}`).CustomerCommutation(ctx)
			requireKind(t, err, ErrUnknownShape)
		}
	})
}
