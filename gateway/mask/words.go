package mask

// words finds all of a list of words in one pass over text, whatever their
// case. It is the automaton of Aho and Corasick as a table: a row for each
// state, a column for each class of bytes.
type words struct {
	class [256]uint8
	next  []uint16   // state<<columnBits | class -> state
	ends  [][]uint16 // by state, from first on: the words that end there
	first uint16     // the first state in which a word ends
}

const columnBits = 6

type trieNode struct {
	next map[byte]int
	fail int
	ends []uint16
}

// newWords takes lower-case words of at most 63 different bytes in all, and
// at most 65,535 bytes together.
func newWords(list []string) *words {
	nodes := []trieNode{{next: map[byte]int{}}}
	for i, w := range list {
		at := 0
		for _, c := range []byte(w) {
			to, ok := nodes[at].next[c]
			if !ok {
				to = len(nodes)
				nodes = append(nodes, trieNode{next: map[byte]int{}})
				nodes[at].next[c] = to
			}
			at = to
		}
		nodes[at].ends = append(nodes[at].ends, uint16(i))
	}
	w := &words{}
	bytes := w.classes(list)
	w.table(nodes, w.link(nodes, bytes), bytes)
	return w
}

// classes gives each byte that occurs in a word a column; all others share
// column 0.
func (w *words) classes(list []string) (bytes []byte) {
	for _, word := range list {
		for _, c := range []byte(word) {
			if w.class[c] == 0 {
				bytes = append(bytes, c)
				w.class[c] = uint8(len(bytes))
			}
		}
	}
	if len(bytes) >= 1<<columnBits {
		panic("mask: too many different bytes in the words")
	}
	for c := byte('a'); c <= 'z'; c++ {
		w.class[c-'a'+'A'] = w.class[c]
	}
	return bytes
}

// link sets, in breadth, where to go on when a word does not go on, and
// returns the nodes in that order.
func (w *words) link(nodes []trieNode, bytes []byte) []int {
	order := []int{0}
	for i := 0; i < len(order); i++ {
		at := order[i]
		for _, c := range bytes {
			to, ok := nodes[at].next[c]
			if !ok {
				continue
			}
			order = append(order, to)
			if at == 0 {
				continue
			}
			fail := nodes[at].fail
			for fail != 0 && nodes[fail].next[c] == 0 {
				fail = nodes[fail].fail
			}
			nodes[to].fail = nodes[fail].next[c]
			nodes[to].ends = append(nodes[to].ends, nodes[nodes[to].fail].ends...)
		}
	}
	return order
}

// table numbers the states, those in which words end last, and fills it in.
func (w *words) table(nodes []trieNode, order []int, bytes []byte) {
	number := make([]uint16, len(nodes))
	var count uint16
	for _, ending := range []bool{false, true} {
		if ending {
			w.first = count
		}
		for _, n := range order {
			if (len(nodes[n].ends) > 0) == ending {
				number[n] = count
				count++
			}
		}
	}
	w.next = make([]uint16, len(nodes)<<columnBits)
	w.ends = make([][]uint16, len(nodes)-int(w.first))
	for _, n := range order { // a node's fail comes before it
		row := w.next[int(number[n])<<columnBits:]
		if n != 0 {
			copy(row[:1<<columnBits], w.next[int(number[nodes[n].fail])<<columnBits:])
		}
		for _, c := range bytes {
			if to, ok := nodes[n].next[c]; ok {
				row[w.class[c]] = number[to]
			}
		}
		if len(nodes[n].ends) > 0 {
			w.ends[number[n]-w.first] = nodes[n].ends
		}
	}
}

// find calls hit with each word and where it ends.
func (w *words) find(text []byte, hit func(word uint16, end int)) {
	var state uint16
	for i, c := range text {
		state = w.next[int(state)<<columnBits|int(w.class[c])]
		if state >= w.first {
			for _, word := range w.ends[state-w.first] {
				hit(word, i+1)
			}
		}
	}
}
