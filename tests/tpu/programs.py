"""Small programs in the form in which the TPU compiler writes them."""

# A loop of 12 turns around a gather that is repeated in the fusions it overlaps with (one chain), a reduce-scatter in
# the compiler's disguise and one gather in the open; outside, an asynchronous all-reduce and a permutation. Groups of
# 4 among 8 devices. VMEM is S(1).
LOOP = """HloModule step

%fused_start (a: bf16[16,256]) -> bf16[64,256] {
  %a = bf16[16,256]{1,0} parameter(0)
  %g1 = bf16[64,256]{1,0} all-gather(%a), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, \
frontend_attributes={chain_id="0"}
  ROOT %begun = bf16[64,256]{1,0} custom-call(%g1)
}

%fused_done (b: bf16[16,256], c: bf16[64,256]) -> bf16[64,256] {
  %b = bf16[16,256]{1,0} parameter(0)
  %c = bf16[64,256]{1,0} parameter(1)
  %g2 = bf16[64,256]{1,0} all-gather(%b), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, \
frontend_attributes={chain_id="0"}
  ROOT %wait = bf16[64,256]{1,0} custom-call(%b, %c, %g2)
}

%add (x: bf16[], y: bf16[]) -> bf16[] {
  %x = bf16[] parameter(0)
  %y = bf16[] parameter(1)
  ROOT %sum = bf16[] add(%x, %y)
}

%all-reduce-scatter.1 (d: bf16[64,256]) -> bf16[16,256] {
  %d = bf16[64,256]{1,0} parameter(0)
  %r = bf16[64,256]{1,0} all-reduce(%d), channel_id=1, replica_groups=mesh['a'=2,'b'=4] {'b'}, to_apply=%add
  %zero = s32[] constant(0)
  ROOT %part = bf16[16,256]{1,0} dynamic-slice(%r, %zero, %zero), dynamic_slice_sizes={16,256}
}

%fused_slice (stack: f32[12,16,256], i: s32[]) -> bf16[16,256] {
  %stack = f32[12,16,256]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %nought = s32[] constant(0)
  %layer = f32[1,16,256]{2,1,0} dynamic-slice(%stack, %i, %nought, %nought), dynamic_slice_sizes={1,16,256}
  %narrow = bf16[1,16,256]{2,1,0} convert(%layer)
  ROOT %flat = bf16[16,256]{1,0:S(1)} bitcast(%narrow)
}

%body (p: (s32[], bf16[64,256])) -> (s32[], bf16[64,256]) {
  %p = (s32[], bf16[64,256]{1,0}, f32[12,16,256]{2,1,0}) parameter(0)
  %n = s32[] get-tuple-element(%p), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%n, %one)
  %weights = f32[12,16,256]{2,1,0} get-tuple-element(%p), index=2
  %mine = bf16[16,256]{1,0:S(1)} fusion(%weights, %n), kind=kLoop, calls=%fused_slice
  %async-collective-start = bf16[64,256]{1,0} fusion(%mine), kind=kCustom, calls=%fused_start
  %async-collective-done = bf16[64,256]{1,0} fusion(%mine, %async-collective-start), kind=kCustom, calls=%fused_done
  %open = bf16[32,256]{1,0:S(1)} all-gather(%mine), channel_id=9, replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}
  %scattered = bf16[16,256]{1,0:S(1)} fusion(%async-collective-done), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %out = (s32[], bf16[64,256]{1,0}, f32[12,16,256]{2,1,0}) tuple(%next, %async-collective-done, %weights)
}

%condition (p: (s32[], bf16[64,256])) -> pred[] {
  %p = (s32[], bf16[64,256]{1,0}, f32[12,16,256]{2,1,0}) parameter(0)
  %m = s32[] get-tuple-element(%p), index=0
  %limit = s32[] constant(12)
  ROOT %less = pred[] compare(%m, %limit), direction=LT
}

ENTRY %main (x0: f32[100]) -> f32[100] {
  %x0 = f32[100]{0} parameter(0)
  %init = (s32[], bf16[64,256]{1,0}, f32[12,16,256]{2,1,0}) custom-call(%x0)
  %loop = (s32[], bf16[64,256]{1,0}, f32[12,16,256]{2,1,0}) while(%init), condition=%condition, body=%body
  %start = (f32[100]{0}, f32[100]{0}) all-reduce-start(%x0), channel_id=4, replica_groups={}, to_apply=%add
  %ended = f32[100]{0} all-reduce-done(%start)
  ROOT %moved = f32[100]{0} collective-permute(%ended), source_target_pairs={{0,5},{5,0}}
}
"""
