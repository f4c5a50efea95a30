pub(crate) fn demo(_: &crate::program::Program) -> i32 {
    0
}
